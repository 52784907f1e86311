"""Scores the images that a version has not predicted yet, or those that have an error again."""

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from mlproject.images import image_files
from mlproject.lake import commits, data_files, rewrites, snapshots
from mlproject.lake.data_files import DataFile
from mlproject.lake.queries import MissingFilesError
from mlproject.lake.snapshots import Snapshot
from mlproject.scoring import coverage, prediction_rows
from mlproject.scoring.batch_scoring import Progress, Scoring, Settings, StaleError, scored_batches
from mlproject.scoring.coverage import Coverage, Tables, complete_up_to
from mlproject.scoring.micro_batches import (
    EVERY,
    MicroBatch,
    Order,
    failed_images,
    oldest,
    parts,
    pending_images,
)
from mlproject.versions.version import Version

DEFAULTS = Settings()
# Of micro-batches, by how many of them another scorer of the version was faster with.
ORDERS: tuple[Order, ...] = ("oldest", "newest", "middle", "random")


@dataclass(frozen=True, slots=True)
class ScoringResult:
    """What one scoring of a version did."""

    images: int
    """Images predicted, each once; an error counts as a prediction."""
    errors: int
    """Images among them that got an error code."""
    size_bytes: int
    """Bytes of these images."""
    unreadable: int
    """Images left out: the table has no bytes of them, and their files cannot be read now."""
    discarded: int
    """Images that another scorer of the version had predicted meanwhile: computed in vain."""
    seconds: float
    """From the search for pending images to the last commit."""
    images_version: int
    """The Delta version of `images` that was read last."""
    table_version: int
    """The Delta version of `predictions` at the end."""

    def summary(self) -> str:
        """The result in one line."""
        left = f"; {self.unreadable} have unreadable files" if self.unreadable else ""
        if self.discarded:
            left += f"; {self.discarded} more at the same time as another command"
        at = f"predictions version {self.table_version}"
        if not self.images:
            return f"nothing to score{left}; {at}"
        return (
            f"{self.images} images scored in {self.seconds:.1f} s "
            f"({self.images / self.seconds:.1f} images/s), {self.errors} with an error{left}; {at}"
        )


def version_predictions(predictions: DataFrame, version: Version) -> DataFrame:
    """The rows of `predictions` that this very version made."""
    return predictions.where(
        (F.col("model_name") == version.name)
        & (F.col("model_version") == version.version)
        & (F.col("model_id") == version.model_id)
    )


def total(results: Sequence[ScoringResult]) -> ScoringResult:
    """Several scorings as one: their sums, and what is left and the versions of the last."""
    summed = ("images", "errors", "size_bytes", "discarded", "seconds")
    sums = {name: sum(getattr(result, name) for result in results) for name in summed}
    return replace(results[-1], **sums)


def score_pending(
    spark: SparkSession,
    lake: str,
    version: Version,
    *,
    settings: Settings = DEFAULTS,
    only: Sequence[str] | None = None,
    complete: Coverage | None = None,
    stop: Callable[[], bool] = lambda: False,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> ScoringResult:
    """Scores the images that a version has not predicted, and commits them in micro-batches.

    A kill loses only the current micro-batch. When another scorer of the same version is
    faster, its rows stand, and pending images are found anew: at most about one micro-batch is
    computed in vain, see `micro_batches.in_order`. An image on which the version
    raises gets the error `model_failed`. `only` holds the image_ids to score; None = all. `stop` is
    called before each micro-batch, and true ends the scoring; `on_progress` is called after each
    commit with the images done and the images to do, at most. At most three images that crash
    workers alone, while others do not, get `model_failed` as well.

    `complete` are earlier counts by which the version had predicted all images: only what was
    ingested since is searched then.

    Raises:
        RefusedError: The version cannot be loaded, fails on every image of its first micro-batch,
            or its workers hang, or crash on more than three images or on all that there are.
        MachineError: The machine fails repeatedly: its memory, a device, files or the network. So
            does one on which workers die with images that the version has predicted before.
    """
    began, lost, searched = time.monotonic(), 0, EVERY

    def commit(files: Sequence[DataFile], since: Progress, batch: MicroBatch) -> Snapshot | None:
        def is_pending(newest: Snapshot) -> bool:
            with suppress(MissingFilesError):
                pending = pending_images(version, Tables(since.images, newest), searched)
                return bool(pc.all(pc.is_in(batch.image_ids(), pending["image_id"])).as_py())
            return False

        return commits.append_files(files, since.predictions, is_pending)

    with _scoring(spark, lake, version, settings, commit) as scoring:
        progress, finished = Progress(*_newest(scoring)), False
        while not finished:
            tables = progress.tables
            order = ORDERS[min(lost, len(ORDERS) - 1)]
            try:
                for part in parts(tables.images, complete_up_to(tables, version, complete)):
                    searched = part
                    pending = pending_images(version, tables, part, only)
                    some = _limited(scoring, progress, pending)
                    later = part.later_rows if some.num_rows == pending.num_rows else 0
                    for done in scored_batches(scoring, progress, some, stop, order, later=later):
                        progress = done
                        on_progress(progress.count, progress.to_do)
                    if stop() or not later or _is_spent(settings, progress):
                        break
                finished = True
            except (StaleError, MissingFilesError) as error:
                predictions, images = _newer(scoring, progress, error)
                progress = replace(
                    progress, predictions=predictions, images=images, overtaken=False
                )
                if isinstance(error, StaleError) and error.discarded:
                    discarded = progress.discarded + error.discarded
                    progress, lost = replace(progress, discarded=discarded), lost + 1
        return _result(scoring, progress, began)


def retry_errors(
    spark: SparkSession,
    lake: str,
    version: Version,
    codes: Sequence[str],
    *,
    settings: Settings = DEFAULTS,
    stop: Callable[[], bool] = lambda: False,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> ScoringResult:
    """Scores the images again for which a version has an error of these codes.

    Tasks write the new rows in micro-batches. At the end, or once `stop` is true, one commit puts
    them in place of the earlier ones, also where the error is the same. A kill before it changes
    nothing. When an image is erased meanwhile, all are scored anew. Options are those of
    `score_pending`, and so are the errors, after which nothing was replaced.
    """
    began, kept = time.monotonic(), list[DataFile]()

    def keep(files: Sequence[DataFile], since: Progress, batch: MicroBatch) -> Snapshot:
        kept.extend(files)
        return since.predictions

    with _scoring(spark, lake, version, settings, keep, retries=True) as scoring:
        while True:
            progress = Progress(*_newest(scoring))
            since, path = progress.predictions, progress.predictions.path
            try:
                failed = failed_images(version, progress.tables, codes)
                failed = _limited(scoring, progress, failed)
                for done in scored_batches(scoring, progress, failed, stop):
                    progress = done
                    on_progress(progress.count, progress.to_do)
            except BaseException as error:
                data_files.delete(path, [file.name for file in kept])
                kept.clear()
                if not isinstance(error, StaleError | MissingFilesError):
                    raise
                _newer(scoring, progress, error)
                continue
            result = _result(scoring, progress, began)
            if not kept:
                return result
            replaced = rewrites.replace_rows(kept, since, version.model_id, lambda: spark)
            if replaced:
                return replace(result, table_version=replaced.table_version)
            kept.clear()


@contextmanager
def _scoring(
    spark: SparkSession,
    lake: str,
    version: Version,
    settings: Settings,
    commit: Callable[[Sequence[DataFile], Progress, MicroBatch], Snapshot | None],
    *,
    retries: bool = False,
) -> Iterator[Scoring]:
    """What micro-batches share, as long as the block runs."""
    snapshots.required(lake, "images")  # raises before a table of predictions is made
    with tempfile.TemporaryDirectory() as folder:

        @cache
        def predict(guarded: bool) -> Column:
            return prediction_rows.predict(spark, version, Path(folder), guarded=guarded)

        counts = image_files.counts(spark)
        yield Scoring(spark, lake, version, settings, counts, predict, retries, commit)


def _limited(scoring: Scoring, progress: Progress, pending: pa.Table) -> pa.Table:
    """The oldest images, as many as the limits still allow."""
    settings = scoring.settings
    max_images = settings.max_images and max(1, settings.max_images - progress.count)
    max_bytes = settings.max_bytes and max(1, settings.max_bytes - progress.size_bytes)
    return oldest(pending, max_images, max_bytes)


def _is_spent(settings: Settings, progress: Progress) -> bool:
    """Whether the limits allow no more images."""
    return bool(
        (settings.max_images and progress.count >= settings.max_images)
        or (settings.max_bytes and progress.size_bytes >= settings.max_bytes)
    )


def _newer(
    scoring: Scoring, progress: Progress, error: StaleError | MissingFilesError
) -> tuple[Snapshot, Snapshot]:
    """As `_newest`, after an error that another writer may have caused; else it is raised."""
    predictions, images = _newest(scoring)
    same = (predictions, images) == (progress.predictions, progress.images)
    if isinstance(error, MissingFilesError) and same:
        raise error  # nobody else has removed them
    return predictions, images


def _newest(scoring: Scoring) -> tuple[Snapshot, Snapshot]:
    """The versions of `predictions` and of `images` from which a scoring goes on.

    In this order: an erasure first rewrites `images`, then commits to `predictions`. So whoever
    still reads the erased images here has a version of `predictions` from before that commit, and
    its own commit fails.
    """
    filler = f"{coverage.FILLER}{scoring.version.model_id}"
    predictions = snapshots.to_append(scoring.lake, "predictions", filler)
    return predictions, snapshots.required(scoring.lake, "images")


def _result(scoring: Scoring, progress: Progress, began: float) -> ScoringResult:
    return ScoringResult(
        progress.count,
        progress.errors,
        progress.size_bytes,
        scoring.unreadable.value["unreadable"],
        progress.discarded,
        time.monotonic() - began,
        progress.images.version,
        progress.predictions.version,
    )
