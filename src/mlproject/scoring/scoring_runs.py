"""Scoring in an MLflow run, and what the run records: the version, its environment and speed."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import mlflow
from mlflow import MlflowClient

from mlproject.errors import UserError, require_positive
from mlproject.integrations import mlflow_tracking, spark_session
from mlproject.lake import location
from mlproject.scoring import coverage
from mlproject.scoring.batch_scoring import Settings
from mlproject.scoring.coverage import RETRYABLE, Coverage, StoredErrors
from mlproject.scoring.scorer import ScoringResult, retry_errors, score_pending, total
from mlproject.versions import registry, version_files
from mlproject.versions.version import Version
from mlproject.versions.version_files import Files

# Tags that must be equal for all rows of a run, or its predictions could not be replayed.
REPLAYED = ("mlproject.digest", "mlproject.preprocessing", "mlproject.packages")


@dataclass(frozen=True, slots=True)
class Retry:
    """What the option `retry` tries again."""

    versions: bool
    """Versions that failed before."""
    codes: tuple[str, ...]
    """Error codes of images that are scored again."""


@dataclass(frozen=True, slots=True)
class ScoredVersion:
    """What `score` did, with which version."""

    version: Version
    """The version behind the model URI when it was read."""
    result: ScoringResult
    """What the scoring did."""
    coverage: Coverage
    """How many of the images the version has predicted now."""


def score(
    model: str,
    *,
    lake: str = "lake",
    retry: bool | Sequence[str] = False,
    batch_images: int = 0,
    task_timeout: float = 600.0,
    stop: Callable[[], bool] = lambda: False,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
    on_message: Callable[[str], None] = lambda message: None,
) -> ScoredVersion:
    """Scores every image that a model version has not predicted yet.

    Args:
        model: Model URI: alias, stage or version.
        lake: Folder or URI of the tables.
        retry: errors = also scores images again whose error can change, and replaces their rows;
            or codes of such errors, of model_failed,gone,changed.
        batch_images: Images a commit; 0 = 3000 for each task slot.
        task_timeout: Seconds without the end of a task after which a version hangs.
        stop: Called before each micro-batch; once true, the scoring ends after the last commit.
        on_progress: Called after each commit with the images done and the images to do.
        on_message: Called with warnings, such as that packages differ.

    Raises:
        UserError: The version, the lake or an option is wrong or absent.
        RefusedError: The version fails, or its files are not those that were promoted.
        MachineError: The machine fails repeatedly: its memory, a device, files or the network.
        KeyboardInterrupt: `stop` was true; what was committed stays.
    """
    parameters = dict(locals())
    require_positive(task_timeout=task_timeout)
    codes = parse_retry(retry, versions=False).codes
    client = mlflow_tracking.connect()
    with mlflow_tracking.run("score", parameters) as run:
        version, run_id = registry.resolve(client, model), run.info.run_id
        located = location.locate_to_write(lake)
        files = verified_files(client, version, on_message)
        describe(client, run_id, version, files, spark_session.master_name())

        settings = Settings(run_id, batch_images, task_timeout=task_timeout)
        options: Any = {"settings": settings, "stop": stop, "on_progress": on_progress}
        found = coverage.read_newest(
            located, lambda tables: coverage.stored_errors(tables, version, codes)
        )
        results = []
        with spark_session.session("mlproject score", lake=located, archive=True) as spark:
            if found.images:
                on_message(f"{version.uri}: scores images with errors again ({found.summary()})")
                tag_retry(client, run_id, found)
                results.append(retry_errors(spark, located, version, codes, **options))
            results.append(score_pending(spark, located, version, **options))
        result = replace(total(results), unreadable=sum(one.unreadable for one in results))
        log(client, run_id, result)
        counted, left = coverage.read_newest(
            located,
            lambda tables: (
                coverage.count(tables, version),
                coverage.stored_errors(tables, version),
            ),
        )
        mlflow.log_metric("coverage", counted.share)
        if left.images:
            on_message(
                f"{version.uri}: {left.images} images have an error that can change "
                f"({left.summary()}); -P retry=errors scores them again"
            )
        if stop():
            raise KeyboardInterrupt
    return ScoredVersion(version, result, counted)


def parse_retry(retry: bool | Sequence[str], *, versions: bool = True) -> Retry:
    """What the option `retry` names: `errors` = all errors that can change, or codes of these.

    True is allowed with `versions`, of commands that do not try failed versions by themselves.

    Raises:
        UserError: It names something else.
    """
    if isinstance(retry, bool):
        given = [str(retry).lower()]
    else:
        given = retry.split(",") if isinstance(retry, str) else list(retry)
    words = ["false", "true"] if versions else ["false"]
    if len(given) == 1 and given[0] in words:
        return Retry(given == ["true"], ())
    codes = list(RETRYABLE) if given == ["errors"] else given
    if not codes or set(codes) - set(RETRYABLE):
        raise UserError(
            f"retry={','.join(given)!r} is not allowed. Write {', '.join(words)}, errors, or codes "
            f"of errors that can change: {','.join(RETRYABLE)}"
        )
    return Retry(versions, tuple(codes))


def verified_files(
    client: MlflowClient, version: Version, on_message: Callable[[str], None]
) -> Files:
    """A version's files; `on_message` is called when it was made with other packages than here.

    Raises:
        UserError: They cannot be read now.
        RefusedError: They are not the same as when the version was promoted.
    """
    files = version_files.read(version)
    version_files.require_unchanged(client, version, files)
    if files.unmet:
        on_message(f"{version.uri} was made with other packages: {', '.join(files.unmet)}")
    return files


def describe(
    client: MlflowClient, run_id: str, version: Version, files: Files, session: str
) -> bool:
    """Tags a run with the version and its environment, before the first row names the run.

    `session` is as `spark_session.master_name` gives it.

    Returns:
        Whether it was tagged; False = rows of this run were made with other files or packages.
    """
    tags = {
        **version_tags(version),
        "mlproject.framework": registry.registered(client, version).tags.get("framework", ""),
        "mlproject.session": session,
        "mlproject.digest": files.digest,
        "mlproject.preprocessing": files.preprocessing,
        "mlproject.packages": " ".join(f"{name}=={here}" for name, _, here in files.packages),
    }
    known = client.get_run(run_id).data.tags
    if any(known.get(key, tags[key]) != tags[key] for key in REPLAYED):
        return False
    for key, value in tags.items():
        client.set_tag(run_id, key, value)
    return True


def log(client: MlflowClient, run_id: str, result: ScoringResult) -> None:
    """Logs a scoring to its run, as metrics."""
    client.set_tag(run_id, "mlproject.images_version", str(result.images_version))
    metrics = {
        "images": result.images,
        "images_per_second": result.images / result.seconds,
        "errors": result.errors,
        "unreadable": result.unreadable,
        "discarded": result.discarded,
        "bytes": result.size_bytes,
    }
    for key, value in metrics.items():
        client.log_metric(run_id, key, value)


def tag_retry(client: MlflowClient, run_id: str, found: StoredErrors) -> None:
    """Records which errors a run scores again: codes, counts, and when they were found."""
    client.set_tag(run_id, "mlproject.retried", found.summary())


def version_tags(version: Version) -> dict[str, str]:
    """The tags by which the runs of a version are found."""
    return {"mlproject.version": version.uri, "mlproject.model_id": version.model_id}
