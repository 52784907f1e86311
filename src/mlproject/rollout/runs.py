"""The MLflow runs of roll-outs and scorings: what they tell, and how fast a version was in them."""

import contextlib
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass

from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException

from mlproject.rollout.ledger import FAILED, SCORING, SERVING, SUPERSEDED, Entry, Page
from mlproject.scoring.scoring_runs import version_tags
from mlproject.versions.registry import Version

STATUS = {SERVING: "FINISHED", FAILED: "FAILED", SUPERSEDED: "KILLED"}  # of a run at work
GATES = "gates.html"  # what the gates found, in the run of `promote` and in that of the roll-out
RECENT = 20  # runs among which the largest is taken for a version's rate


@dataclass(frozen=True, slots=True)
class Rate:
    """How fast images were scored once."""

    images_per_second: float
    """Measured, with the start of the workers."""
    images: int
    """Images it was measured on."""
    source: str
    """Which run it was, and of what, in words."""


def begin(client: MlflowClient, version: Version, last: Entry | None, parent: Run) -> str:
    """The id of the run of a version's roll-out at its pointer: that at work, or a new one.

    Args:
        client: The tracking server.
        version: The version, with its pointer.
        last: Its last row in the ledger.
        parent: The run of the verb.
    """
    if last and last.state == SCORING and last.run_id:
        with _absent_is_fine():  # deleted, or of another server
            if client.get_run(last.run_id).info.lifecycle_stage == "active":
                client.update_run(last.run_id, status="RUNNING")
                return last.run_id
    tags = {
        "mlflow.parentRunId": parent.info.run_id,
        "mlproject.verb": "rollout",
        "mlproject.pointer": str(version.pointer),
        **version_tags(version),
    }
    name = f"{version.pointer} = {version.version}"
    made = client.create_run(parent.info.experiment_id, tags=tags, run_name=name)
    _bring_gates(client, version, made)
    return str(made.info.run_id)


def tell(client: MlflowClient, entry: Entry) -> None:
    """Puts a row of the ledger onto its run and, as tags, onto its version in the registry."""
    version = entry.version
    facts = {"mlproject.coverage": f"{entry.coverage:.4f}", "mlproject.reason": entry.reason}
    with _absent_is_fine():
        for key, value in facts.items():
            client.set_tag(entry.run_id, key, value)
        answered = entry.covered.predicted if entry.covered else 0
        client.log_metric(entry.run_id, "coverage", entry.coverage, step=answered)
        ended = client.get_run(entry.run_id).info.end_time
        if entry.state in STATUS and not ended:  # who has served before ended well
            client.set_terminated(entry.run_id, STATUS[entry.state])
    with _absent_is_fine():  # a version that was deleted has no tags
        for key, value in {**facts, "mlproject.state": entry.state}.items():
            client.set_model_version_tag(version.name, str(version.version), key, value)
    with _absent_is_fine():  # last, as `mend` takes it for all
        client.set_tag(entry.run_id, "mlproject.state", entry.state)


def mend(client: MlflowClient, page: Page, pointer: str) -> None:
    """Tells again what runs and registry missed of a pointer's states, as their server was away."""
    for version in {entry.version for entry in page.of(pointer)}:
        last = page.last(version)
        if last and last.run_id:
            with _absent_is_fine():
                run = client.get_run(last.run_id)
                if run.data.tags.get("mlproject.state") != last.state:
                    tell(client, last)


def rate(client: MlflowClient, version: Version, session: str) -> Rate | None:
    """How fast a version was in such a session, else one of its framework; None = not measured.

    Of its last runs the one with most images counts, as the start of the workers weighs least.

    Args:
        client: The tracking server.
        version: The version to be scored.
        session: The kind of Spark session, as `session.kind` gives it.
    """
    framework = ""
    with _absent_is_fine():
        found = client.get_model_version(version.name, str(version.version))
        framework = found.tags.get("framework", "")
    asked = {version.uri: f"tags.`mlproject.model_id` = '{version.model_id}'"}
    if framework:
        asked[f"a {framework} version"] = f"tags.`mlproject.framework` = '{framework}'"
    experiments = [found.experiment_id for found in client.search_experiments()]
    for words, condition in asked.items():
        runs = client.search_runs(
            experiments,
            f"{condition} AND tags.`mlproject.session` = '{session}' AND metrics.images > 0",
            max_results=RECENT,
            order_by=["attributes.start_time DESC"],
        )
        if runs:
            best = max(runs, key=lambda run: run.data.metrics["images"])
            metrics, images = best.data.metrics, int(best.data.metrics["images"])
            source = f"{images} images by {words} in run {best.info.run_id[:8]}, {session}"
            return Rate(metrics["images_per_second"], images, source)
    return None


def _bring_gates(client: MlflowClient, version: Version, run: Run) -> None:
    """Puts what the gates last found of a version at its pointer beside its roll-out."""
    lost = contextlib.suppress(MlflowException, OSError)  # a page, no more
    with lost, tempfile.TemporaryDirectory() as folder:
        found = client.search_runs(
            [run.info.experiment_id],
            f"tags.`mlproject.pointer` = '{version.pointer}' AND tags.`mlproject.gate` LIKE '%' "
            f"AND tags.`mlproject.model_id` = '{version.model_id}'",
            max_results=1,
            order_by=["attributes.start_time DESC"],
        )
        for promoted in found:
            if any(file.path == GATES for file in client.list_artifacts(promoted.info.run_id)):
                path = client.download_artifacts(promoted.info.run_id, GATES, folder)
                client.log_artifact(run.info.run_id, path)


@contextlib.contextmanager
def _absent_is_fine() -> Iterator[None]:
    try:
        yield
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise
