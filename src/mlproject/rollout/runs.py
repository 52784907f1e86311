"""The MLflow runs of roll-outs: one observer writes their tags, metrics and statuses."""

import contextlib
import tempfile
from collections.abc import Iterator

from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException

from mlproject.rollout.ledger import FAILED, SCORING, SERVING, SUPERSEDED, Entry, LedgerSnapshot
from mlproject.scoring import scoring_runs
from mlproject.scoring.scoring_runs import version_tags
from mlproject.versions.version import Version
from mlproject.versions.version_files import Files

STATUS = {SERVING: "FINISHED", FAILED: "FAILED", SUPERSEDED: "KILLED"}  # of a run that is active
GATES = "gates.html"  # the page of the gates, in the run of `promote` and in that of the roll-out


class RolloutRuns:
    """Records the roll-outs of one command in MLflow: a child run for each version at its alias."""

    def __init__(self, client: MlflowClient, parent: Run) -> None:
        self._client, self._parent = client, parent
        self._ids: dict[Version, str] = {}
        self._rows: dict[str, Entry] = {}  # the last row of each run

    def began(self, version: Version, last: Entry | None) -> str:
        """The id of a roll-out's run: a new one, or that of its last row if it continues."""
        if version not in self._ids:
            self._ids[version] = _continued(self._client, last) or self._new(version)
            if last and last.run_id == self._ids[version]:
                self._rows[last.run_id] = last
        return self._ids[version]

    def scoring_began(self, version: Version, files: Files, session: str) -> str:
        """Records what predicts, before the first prediction names the run; the run's id."""
        run_id = self.began(version, None)
        if scoring_runs.describe(self._client, run_id, version, files, session):
            return run_id
        # It began with other packages: a run is of one environment.
        self._client.set_terminated(self._ids.pop(version))
        return self.scoring_began(version, files, session)

    def micro_batch_scored(self, run_id: str, images: int) -> None:
        """Records the coverage after so many images of this scoring."""
        last = self._rows.get(run_id)
        if last and last.covered and last.covered.images:
            predicted = last.covered.predicted + images
            with contextlib.suppress(MlflowException, OSError):  # one point of a curve
                share = predicted / last.covered.images
                self._client.log_metric(run_id, "coverage", share, step=predicted)

    def row_written(self, entry: Entry) -> None:
        """Records a row of `rollouts` after its commit."""
        self._rows[entry.run_id] = entry
        if entry.state == SUPERSEDED:  # if it serves again, then in a run of its own
            left = self._ids.pop(entry.version, None)
            if left and left not in self._rows:  # it has no row
                self._client.set_terminated(left)
        _record(self._client, entry)

    def ended(self, *, stopped: bool) -> None:
        """Ends the runs of this command; a roll-out that continues later is `SCHEDULED`."""
        for run_id in self._ids.values():
            last = self._rows.get(run_id)
            with contextlib.suppress(MlflowException, OSError):  # the server may be away
                if last is None:
                    self._client.set_terminated(run_id, "KILLED" if stopped else "FINISHED")
                elif last.state == SCORING:
                    self._client.update_run(run_id, status="SCHEDULED")
        self._ids.clear()

    def _new(self, version: Version) -> str:
        tags = {
            "mlflow.parentRunId": self._parent.info.run_id,
            "mlproject.verb": "rollout",
            "mlproject.pointer": str(version.pointer),
            **version_tags(version),
        }
        name = f"{version.pointer} = {version.version}"
        experiment = self._parent.info.experiment_id
        made = self._client.create_run(experiment, tags=tags, run_name=name)
        _copy_gate_page(self._client, version, made)
        return str(made.info.run_id)


def record_missed(client: MlflowClient, rows: LedgerSnapshot, alias: str) -> None:
    """Records the states of an alias that MLflow missed because its server was away."""
    for last in {entry.version: entry for entry in rows.rows(alias)}.values():
        if last.run_id:
            with absence_ignored():
                run = client.get_run(last.run_id)
                if run.data.tags.get("mlproject.state") != last.state:
                    _record(client, last)


def _continued(client: MlflowClient, last: Entry | None) -> str:
    """The run of a roll-out that continues, active again; empty = there is none."""
    if last and last.state == SCORING and last.run_id:
        with absence_ignored():  # it was deleted, or is on another server
            if client.get_run(last.run_id).info.lifecycle_stage == "active":
                client.update_run(last.run_id, status="RUNNING")
                return last.run_id
    return ""


def _record(client: MlflowClient, entry: Entry) -> None:
    """Tags the run of a row, and its version in the registry, with the state in the row."""
    version = entry.version
    facts = {"mlproject.coverage": f"{entry.coverage:.4f}", "mlproject.reason": entry.reason}
    with absence_ignored():
        for key, value in facts.items():
            client.set_tag(entry.run_id, key, value)
        predicted = entry.covered.predicted if entry.covered else 0
        client.log_metric(entry.run_id, "coverage", entry.coverage, step=predicted)
        ended = client.get_run(entry.run_id).info.end_time
        if entry.state in STATUS and not ended:  # a version that has served ended well
            client.set_terminated(entry.run_id, STATUS[entry.state])
    with absence_ignored():  # a version that was deleted has no tags
        for key, value in {**facts, "mlproject.state": entry.state}.items():
            client.set_model_version_tag(version.name, str(version.version), key, value)
    with absence_ignored():  # last: `record_missed` compares this tag alone
        client.set_tag(entry.run_id, "mlproject.state", entry.state)


def _copy_gate_page(client: MlflowClient, version: Version, run: Run) -> None:
    """Copies the page of the gates that the version passed for its alias into its roll-out."""
    fault = contextlib.suppress(MlflowException, OSError)  # the roll-out needs no page
    with fault, tempfile.TemporaryDirectory() as folder:
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
def absence_ignored() -> Iterator[None]:
    """Ignores that a run, version or tag is not there."""
    try:
        yield
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise
