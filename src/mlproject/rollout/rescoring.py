"""Roll-outs of several aliases in one run: the public function `rescore`."""

import contextlib
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import mlflow
from mlflow.exceptions import MlflowException
from py4j.protocol import Py4JError  # a worker that crashes raises no PySparkException
from pyspark.errors import PySparkException

from mlproject.errors import (
    MlprojectError,
    RefusedError,
    UserError,
    require_at_least,
    require_positive,
    require_share,
)
from mlproject.integrations import mlflow_tracking
from mlproject.integrations.outages import error_message, spark_ended
from mlproject.integrations.spark_session import LazySession
from mlproject.lake import location
from mlproject.rollout import ledger, reconciliation
from mlproject.rollout.decision import Policy
from mlproject.rollout.reconciliation import RolloutResult
from mlproject.rollout.runs import RolloutRuns
from mlproject.rollout.version_scoring import Budget, VersionScorer
from mlproject.scoring.scoring_runs import parse_retry

FAULTS = (MlprojectError, MlflowException, PySparkException, Py4JError, OSError)  # of one alias


@dataclass(frozen=True, slots=True)
class RescoreResult:
    """The result of one run over its aliases."""

    rollouts: tuple[RolloutResult, ...]
    """One for each alias, in the order of the run; fewer when the run was stopped."""
    stopped: bool
    """Whether the run was stopped; what was committed stays."""


def rescore(
    pointers: Sequence[str] = (),
    lake: str = "lake",
    *,
    max_images: int = 0,
    max_bytes: int = 0,
    max_minutes: float = 0,
    retry: bool | Sequence[str] = False,
    verify: bool = False,
    min_coverage: float = 1.0,
    max_error_rate: float = 0.05,
    task_timeout: float = 600,
    stop: Callable[[], bool] = lambda: False,
    on_progress: Callable[[str, int, int], None] = lambda version, done, total: None,
    on_message: Callable[[str], None] = lambda message: None,
    on_fault: Callable[[str], None] = lambda message: None,
    on_rollout: Callable[[RolloutResult], None] = lambda result: None,
) -> RescoreResult:
    """Rolls out the version behind each alias: scores what is missing, then lets it serve.

    Args:
        pointers: URIs of aliases or stages, such as models:/photos@champion; empty = all in table
            rollouts.
        lake: Folder or URI of the tables.
        max_images: Images to score in a run; 0 = all.
        max_bytes: Bytes to read in a run; 0 = no limit.
        max_minutes: Minutes that a run scores; 0 = no limit.
        retry: true = also rolls out versions that failed before; errors = does so, and also scores
            images again whose error can change, and replaces their rows; or codes of such errors,
            of model_failed,gone,changed.
        verify: true = counts every id, and not only what was added since the last counts in table
            rollouts.
        min_coverage: Share of the images that a version must have predicted to serve, 0..1.
        max_error_rate: Share of the images readable before that may get an error, 0..1.
        task_timeout: Seconds without the end of a task after which a version hangs.
        stop: Called before each micro-batch; true ends the run.
        on_progress: Called after each micro-batch with version URI, images done, images to do.
        on_message: Called with lines such as "made with other packages".
        on_fault: Called with a line for each of several aliases that fails; the others go on.
        on_rollout: Called with the result of each alias.

    Raises:
        UserError: An option, an alias, an image or a version's files are not usable.
        RefusedError: A version failed, now or before.
        MachineError: The machine fails repeatedly: its memory, a device, files or the network.
    """
    parameters = dict(locals())
    check_options(max_images, max_bytes, max_minutes, min_coverage, max_error_rate, task_timeout)
    tried_again = parse_retry(retry)
    client = mlflow_tracking.connect()
    with (
        mlflow_tracking.run("rescore", parameters) as run,
        contextlib.closing(LazySession("mlproject rescore", lake=lake, archive=True)) as spark,
    ):
        lake = location.locate_to_write(lake)
        aliases = ledger.read(lake).aliases(pointers)
        scorer = VersionScorer(
            client,
            lake,
            spark,
            RolloutRuns(client, run),
            budget(max_images, max_bytes, max_minutes),
            task_timeout,
            on_progress,
            on_message,
        )
        policy = Policy(min_coverage, max_error_rate, tried_again.versions, tried_again.codes)
        results: list[RolloutResult] = []
        faults: list[Exception] = []
        try:
            for alias in aliases:
                if stop():
                    break
                try:
                    result = reconciliation.reconcile(alias, scorer, policy, stop, verify=verify)
                except FAULTS as error:
                    faults.append(error)
                    if spark_ended(error):  # the next alias starts another session
                        spark.end()
                    if len(aliases) > 1:
                        on_fault(f"{alias}: {error_message(error).removeprefix(f'{alias}: ')}")
                    continue
                results.append(result)
                on_rollout(result)
        finally:
            scorer.runs.ended(stopped=stop())
        with contextlib.suppress(MlflowException, OSError):  # no outage now hides a fault
            _log(scorer, run.info.run_id, results)
        if stop():
            mlflow.end_run("KILLED")
        elif faults:
            raise _fault(faults, len(aliases))
    return RescoreResult(tuple(results), stop())


def budget(max_images: int, max_bytes: int, max_minutes: float) -> Budget:
    """The budget of a run with these limits; 0 = no limit."""
    until = time.monotonic() + 60 * max_minutes if max_minutes else math.inf
    return Budget(max_images or math.inf, max_bytes or math.inf, until)


def check_options(
    max_images: int,
    max_bytes: int,
    max_minutes: float,
    min_coverage: float,
    max_error_rate: float,
    task_timeout: float,
) -> None:
    """Raises UserError for an option of `rescore` out of its range."""
    require_at_least(0, max_images=max_images, max_bytes=max_bytes, max_minutes=max_minutes)
    require_share(min_coverage=min_coverage, max_error_rate=max_error_rate)
    require_positive(task_timeout=task_timeout)


def _log(scorer: VersionScorer, run_id: str, results: Sequence[RolloutResult]) -> None:
    """Logs the sums of a run; by the client, as MLflow's fluent functions call Spark too."""
    images = sum(scored.images for scored in scorer.results)
    seconds = sum(scored.seconds for scored in scorer.results)
    metrics: dict[str, float] = {
        "images": images,
        "images_per_second": images / seconds if seconds else 0,
        "errors": sum(scored.errors for scored in scorer.results),
    }
    if results:
        metrics["coverage"] = min(found.coverage.share for found in results)
        served = [f"{found.version.pointer} = {found.version.uri}" for found in results]
        scorer.client.set_tag(run_id, "mlproject.serving", ", ".join(served))
    for key, value in metrics.items():
        scorer.client.log_metric(run_id, key, value)


def _fault(faults: Sequence[Exception], aliases: int) -> Exception:
    """The error of a run in which some of its aliases failed."""
    others = [fault for fault in faults if not isinstance(fault, RefusedError | UserError)]
    if others or aliases == 1:
        return (others or list(faults))[0]
    refused = any(isinstance(fault, RefusedError) for fault in faults)
    kind = RefusedError if refused else UserError
    return kind("not every alias could be rolled out (see above)")
