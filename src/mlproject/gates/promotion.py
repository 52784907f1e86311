"""Promotion: an alias or stage is moved to a model version that the gates do not refuse."""

import tempfile
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

import mlflow
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException

from mlproject.errors import (
    MachineError,
    MlprojectError,
    RefusedError,
    UserError,
    first_line,
    require_at_least,
    require_share,
)
from mlproject.gates import approvals, checks, comparison, gate_page, summary
from mlproject.gates.checks import BLOCK, OFF, GateResults
from mlproject.gates.verdicts import REFUSED, Limits
from mlproject.images import stored_images
from mlproject.integrations import mlflow_tracking, spark_session
from mlproject.integrations.framework_process import process
from mlproject.integrations.outages import raise_fault_of_machine
from mlproject.integrations.spark_session import LazySession
from mlproject.lake import location
from mlproject.reporting import html
from mlproject.rollout import ledger, runs
from mlproject.scoring import coverage, scorer, scoring_runs
from mlproject.scoring.batch_scoring import Settings
from mlproject.storage import local_files
from mlproject.versions import reference_results, registry, version_files
from mlproject.versions.engines import ONNXRUNTIME
from mlproject.versions.version import Version

REFERENCE_S = 600  # seconds in which a version must load and score the reference images
NOTHING = "nothing"  # what an alias or stage without a version names


@dataclass(frozen=True, slots=True)
class Promotion:
    """The result of a promotion."""

    pointer: str
    """The alias or stage as a URI."""
    before: str
    """URI of the version that it named before; `nothing` = none."""
    version: Version
    """The version that was to be promoted."""
    moved: bool
    """Whether the alias or stage was moved."""
    outcome: str
    """What the gates decided: `passed`, `warned`, `refused` or `off`."""
    results: GateResults
    """The verdicts of the gates and what they measured."""


class PromotionRefusedError(RefusedError):
    """The gates refused a version; nothing was moved."""

    def __init__(self, promotion: Promotion) -> None:
        names = ", ".join(verdict.gate for verdict in promotion.results.refused)
        super().__init__(
            f"{promotion.pointer} stays on {promotion.before}: {promotion.version.uri} is refused "
            f"by {names}"
        )
        self.promotion = promotion


def promote(
    model: str,
    *,
    alias: str = "champion",
    stage: str = "",
    lake: str = "lake",
    gate: Literal["", "off", "warn", "block"] = "",
    sample: int = 500,
    min_accuracy: float = 0.0,
    max_drop: float = 0.1,
    max_changed: float = 1.0,
    require_approval: bool = False,
    approve: bool = False,
    dry_run: bool = False,
    stop: Callable[[], bool] = lambda: False,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Promotion:
    """Moves an alias, or a stage, to a model version that has passed the gates.

    Where the alias or stage has a serving version, the new version is compared with it on images
    of the lake first.

    Args:
        model: Model URI of the version, such as models:/photos/3.
        alias: The alias that is moved.
        stage: The stage that is moved instead of an alias.
        lake: Folder or URI of the tables.
        gate: off, warn (report and move) or block; empty = block where the alias or stage has a
            serving version, else off.
        sample: Images that are compared, at most.
        min_accuracy: Lowest accuracy on labelled images, 0 to 1; 0 = no limit.
        max_drop: Largest drop of the accuracy, on all images and on each label, 0 to 1; 1 = no
            limit.
        max_changed: Largest share of the sample whose label may change, 0 to 1; 1 = no limit.
        require_approval: true = only a version that a person approved is promoted.
        approve: true = you approve the version with this promotion.
        dry_run: true = report, and move nothing.
        stop: Called between micro-batches; true = end without a promotion.
        on_progress: Called with the images of the sample scored so far, and all.

    Raises:
        UserError: A parameter cannot be used, or there is no such version.
        PromotionRefusedError: The gates refused the version; its `promotion` is the result.
        MachineError: The machine fails repeatedly; nothing was refused or moved.
    """
    parameters = dict(locals())
    require_share(min_accuracy=min_accuracy, max_drop=max_drop, max_changed=max_changed)
    require_at_least(1, sample=sample)
    client = mlflow_tracking.connect()
    with mlflow_tracking.run("promote", parameters) as run:
        version = replace(registry.resolve(client, model), pointer=None)
        pointer = registry.pointer(version, alias=alias, stage=stage)
        tables = location.locate(lake)
        served = None if gate == OFF else ledger.read(tables).serving(pointer)
        serving = replace(served.version, pointer=None) if served else None
        mode = gate or (BLOCK if serving else OFF)
        with closing(LazySession("mlproject promote", lake=tables)) as spark:
            results = checks.check_version(
                client,
                tables,
                version,
                serving,
                reference_fault=partial(_reference_fault, client),
                score=partial(
                    _score,
                    client,
                    run.info.run_id,
                    tables,
                    version,
                    spark,
                    stop=stop,
                    on_progress=on_progress,
                ),
                limits=Limits(sample, min_accuracy, max_drop, max_changed, require_approval),
                mode=mode,
                approved=approve,
            )
            outcome = results.outcome(mode)
            tags = {"mlproject.pointer": pointer, **scoring_runs.version_tags(version)}
            mlflow.set_tags({**tags, "mlproject.gate": outcome})
            if mode != OFF:
                _log_results(pointer, version, serving, results, outcome)
        if stop():
            raise KeyboardInterrupt
        before = _named_version(client, pointer)
        moved = outcome != REFUSED and not dry_run
        if moved:
            _record_promotion(client, run, version, results, approve=approve)
            registry.move(client, version, alias=alias, stage=stage)
        promotion = Promotion(pointer, before, version, moved, outcome, results)
        if outcome == REFUSED:
            raise PromotionRefusedError(promotion)
    return promotion


def _reference_fault(client: MlflowClient, version: Version) -> str:
    """What is wrong with a version's results on the reference images; "" = nothing."""
    tags = registry.registered(client, version).tags
    framework = "" if tags.get("engine") == ONNXRUNTIME else tags.get("framework", "")
    try:
        # A process of its own: what a version imports, or breaks, stays in it.
        with (
            tempfile.TemporaryDirectory() as folder,
            process(framework, timeout_s=REFERENCE_S) as call,
        ):
            version_files.download(version, Path(folder))
            return call(reference_results.fault, folder)
    except MachineError:
        raise  # it says nothing of the version
    except (MlprojectError, MlflowException) as error:
        raise_fault_of_machine(error, "The reference images were not predicted")
        return first_line(error)


def _score(
    client: MlflowClient,
    run_id: str,
    lake: str,
    candidate: Version,
    spark: LazySession,
    version: Version,
    image_ids: Sequence[str],
    *,
    stop: Callable[[], bool],
    on_progress: Callable[[int, int], None],
) -> None:
    """Scores images with a version; the predictions stay, whatever the gates decide."""
    files = version_files.read(version)
    if version == candidate:  # the run's tags name one version
        scoring_runs.describe(client, run_id, version, files, spark_session.master_name())
    else:  # the digest of a version that may be refused is not recorded
        version_files.require_unchanged(client, version, files)
    scored = scorer.score_pending(
        spark(),
        location.locate_to_write(lake),
        version,
        settings=Settings(run_id=run_id),
        only=image_ids,
        stop=stop,
        on_progress=on_progress,
    )
    if stop():
        raise KeyboardInterrupt
    if version == candidate:
        scoring_runs.log(client, run_id, scored)


def _log_results(
    pointer: str,
    version: Version,
    serving: Version | None,
    results: GateResults,
    outcome: str,
) -> None:
    """Logs the page with thumbnails, the changed images as a table, and the metrics."""
    paths, thumbnails = {}, {}
    difference, images = results.comparison.difference, results.comparison.images
    if difference and difference.changes and images:
        ids = [change.image.image_id for change in difference.changes]
        paths = comparison.image_paths(images.lake, ids)
        shown = [change.image.image_id for change in gate_page.shown_changes(difference)]
        thumbnails = coverage.read_newest(
            images.lake,
            lambda now: html.pictures(now.images, stored_images.rows(now.images, shown)),
        )
    page = gate_page.render(pointer, version, serving, results, outcome, paths, thumbnails)
    mlflow.log_text(page, runs.GATES)
    if difference is not None:
        mlflow.log_table(summary.changed_images(difference, paths), "changed.json")
    mlflow.log_metrics(summary.metrics(results))


def _named_version(client: MlflowClient, pointer: str) -> str:
    try:
        return registry.resolve(client, pointer).uri
    except UserError:
        return NOTHING


def _record_promotion(
    client: MlflowClient, run: Run, version: Version, results: GateResults, *, approve: bool
) -> None:
    """Records the digest of the files, and the approval, on the version before it serves."""
    files = results.files
    if files is None:
        raise ValueError("the gates passed a version without files")
    version_files.require_unchanged(client, version, files)
    if approve:
        who = run.data.tags.get("mlflow.user") or local_files.user_name()
        approvals.approve(client, version, files.digest, who)
