"""Scores the images that a version has not predicted yet, and commits them in micro-batches."""

import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from mlproject.errors import RefusedError
from mlproject.images import image_files
from mlproject.images.image_bytes import are_inline, image_contents
from mlproject.lake import commits, snapshots
from mlproject.lake.snapshots import Snapshot
from mlproject.scoring import prediction_rows, workers
from mlproject.scoring.decision import Step, next_step
from mlproject.scoring.micro_batches import Attempt, MicroBatch, divide, oldest, pending_images
from mlproject.versions.version import Version

BATCH_IMAGES_A_SLOT = 3000  # images a commit and task slot: about 20 s of a CPU core's work
# Bytes a commit and task slot. A part of an ingest commit reads all its data files, so commits of
# ingest's `max_bytes` stay whole.
BATCH_BYTES_A_SLOT = 1024**3


@dataclass(frozen=True, slots=True)
class Settings:
    """How much one scoring does, and how."""

    run_id: str = ""
    """The MLflow run that the rows name."""
    batch_images: int = 0
    """Images in one commit, about; 0 = 3000 for each task slot."""
    max_images: int = 0
    """Images to score at most; 0 = all that are pending."""
    max_bytes: int = 0
    """Bytes to read at most, and one image at least; 0 = no limit."""
    task_timeout: float = 600
    """Seconds in which some task of a micro-batch must end, or its workers hang."""
    quarantine: bool = False
    """Whether an image that crashes the workers gets the error `model_failed`, once the version
    has predicted others: for the version that serves. Any other version is refused."""


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
    seconds: float
    """From the search for pending images to the last commit."""
    images_version: int
    """The Delta version of `images` that was read last."""
    table_version: int
    """The Delta version of `predictions` at the end."""

    def summary(self) -> str:
        """The result in one line."""
        left = f"; {self.unreadable} have unreadable files" if self.unreadable else ""
        at = f"predictions version {self.table_version}"
        if not self.images:
            return f"nothing to score{left}; {at}"
        return (
            f"{self.images} images scored in {self.seconds:.1f} s "
            f"({self.images / self.seconds:.1f} images/s), {self.errors} with an error{left}; {at}"
        )


@dataclass(frozen=True, slots=True)
class _Scoring:
    """What is the same for all micro-batches of one scoring."""

    spark: SparkSession
    lake: str
    version: Version
    settings: Settings
    unreadable: Any  # Spark's accumulator of the images that are left out
    predict: Callable[[bool], Column]  # what the version returns, given whether it is guarded


@dataclass(frozen=True, slots=True)
class _Progress:
    """What one scoring has committed, and the versions from which it goes on."""

    predictions: Snapshot
    images: Snapshot
    to_do: int = 0  # images to predict, those of `count` included
    count: int = 0  # images predicted
    errors: int = 0  # images among them with an error
    size_bytes: int = 0  # bytes of these images
    quarantined: int = 0  # images among them that crashed the workers
    guarded: bool = False  # whether the version has raised, and is scored through the guard since


class _StaleError(Exception):
    """Another scorer of the version, or an erasure, came first: pending images are found anew."""


def version_predictions(predictions: DataFrame, version: Version) -> DataFrame:
    """The rows of `predictions` that this very version made."""
    return predictions.where(
        (F.col("model_name") == version.name)
        & (F.col("model_version") == version.version)
        & (F.col("model_id") == version.model_id)
    )


def total(results: Sequence[ScoringResult]) -> ScoringResult:
    """Several scorings as one: their sums, and what is left and the versions of the last."""
    summed = ("images", "errors", "size_bytes", "seconds")
    sums = {name: sum(getattr(result, name) for result in results) for name in summed}
    return replace(results[-1], **sums)


def score_pending(
    spark: SparkSession,
    lake: str,
    version: Version,
    *,
    settings: Settings = Settings(),
    only: Sequence[str] | None = None,
    stop: Callable[[], bool] = lambda: False,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> ScoringResult:
    """Scores the images that a version has not predicted, and commits them in micro-batches.

    A kill loses only the current micro-batch. When another scorer of the same version is
    faster, its rows stand, and pending images are found anew. An image on which the version
    raises gets the error `model_failed`. `only` holds the image_ids to score; None = all. `stop` is
    called before each micro-batch, and true ends the scoring; `on_progress` is called after each
    commit with the images done and the images to do.

    Raises:
        RefusedError: The version cannot be loaded, or its workers crash or hang repeatedly; with
            `quarantine`: they crash on more than three images, or on all that there are.
    """
    began = time.monotonic()
    snapshots.required(lake, "images")  # raises before a table of predictions is made
    with tempfile.TemporaryDirectory() as folder:

        @cache
        def predict(guarded: bool) -> Column:
            return prediction_rows.predict(spark, version, Path(folder), guarded=guarded)

        counts = image_files.counts(spark)
        scoring = _Scoring(spark, lake, version, settings, counts, predict)
        progress, finished = _Progress(*_newest(scoring)), False
        while not finished:
            pending = pending_images(version, progress.images, progress.predictions, only)
            max_images = settings.max_images and max(1, settings.max_images - progress.count)
            max_bytes = settings.max_bytes and max(1, settings.max_bytes - progress.size_bytes)
            pending = oldest(pending, max_images, max_bytes)
            try:
                for done in _commits(scoring, progress, pending, stop):
                    progress = done
                    on_progress(progress.count, progress.to_do)
                finished = True
            except (_StaleError, workers.MissingFilesError) as error:
                predictions, images = _newest(scoring)
                same = (predictions, images) == (progress.predictions, progress.images)
                if isinstance(error, workers.MissingFilesError) and same:
                    raise  # nobody else has removed them
                progress = replace(progress, predictions=predictions, images=images)
    return ScoringResult(
        progress.count,
        progress.errors,
        progress.size_bytes,
        counts.value["unreadable"],
        time.monotonic() - began,
        progress.images.version,
        progress.predictions.version,
    )


def _newest(scoring: _Scoring) -> tuple[Snapshot, Snapshot]:
    """The versions of `predictions` and of `images` from which a scoring goes on.

    In this order: an erasure first rewrites `images`, then commits to `predictions`. So whoever
    still reads the erased images here has a version of `predictions` from before that commit, and
    its own commit fails.
    """
    filler = f"score:{scoring.version.model_id}"
    predictions = snapshots.to_append(scoring.lake, "predictions", filler)
    return predictions, snapshots.required(scoring.lake, "images")


def _commits(
    scoring: _Scoring, progress: _Progress, pending: pa.Table, stop: Callable[[], bool]
) -> Iterator[_Progress]:
    """Scores pending images in micro-batches, and yields the progress after each commit."""
    slots = scoring.spark.sparkContext.defaultParallelism
    batch_images = scoring.settings.batch_images or BATCH_IMAGES_A_SLOT * slots
    batches = divide(pending, batch_images, BATCH_BYTES_A_SLOT * slots)
    progress = replace(progress, to_do=progress.count + sum(batch.images for batch in batches))
    queue = deque(map(Attempt, batches))
    crashed: list[MicroBatch] = []  # parts that crash workers, no two with an image in common
    while queue and not stop():
        item = queue.popleft()
        if not item.is_suspect:
            returned = scoring.predict(progress.guarded)
            try:
                progress = _committed(scoring, progress, item.batch, returned)
            except workers.WorkerError as error:
                crashes = item.crashes + (error.fault != "raised")
                item = replace(item, crashes=crashes, error=error)
            else:
                yield progress
                continue
        crashed = [part for part in crashed if not part.contains(item.batch)]
        failure = item.failure(
            guarded=progress.guarded,
            may_quarantine=scoring.settings.quarantine,
            suspects=len(crashed) + progress.quarantined,
            predicted_others=progress.count > progress.errors,
            others_left=any(not other.is_suspect for other in queue),
            stopped=stop(),
        )
        match next_step(failure):
            case Step.GUARD | Step.RETRY as step:
                progress = replace(progress, guarded=progress.guarded or step is Step.GUARD)
                queue.appendleft(item)
            case Step.SPLIT:
                crashed.append(item.batch)
                queue.extend(map(Attempt, item.batch.halves()))
            case Step.POSTPONE:
                crashed.append(item.batch)
                queue.append(item)
            case Step.QUARANTINE:
                failed = prediction_rows.model_failed()
                progress = _committed(scoring, progress, item.batch, failed)
                progress = replace(progress, quarantined=progress.quarantined + 1)
                yield progress
            case Step.REFUSE:
                times = f"{item.crashes} times " if item.is_suspect else ""
                message = f"{scoring.version.uri} cannot score: {times}{item.error}"
                raise RefusedError(message) from item.error
            case Step.STOP:
                return


def _committed(
    scoring: _Scoring, progress: _Progress, batch: MicroBatch, returned: Column
) -> _Progress:
    """The progress after the rows of a micro-batch were written by tasks and committed."""
    version, settings = scoring.version, scoring.settings
    with workers.supervised(scoring.spark, settings.task_timeout):
        images = progress.images.read(scoring.spark)
        rows = batch.rows(images)
        if not are_inline(progress.images):
            rows = image_contents(rows, images, scoring.unreadable)
        rows = prediction_rows.prediction_rows(
            rows,
            returned,
            version,
            run_id=settings.run_id,
            images_version=progress.images.version,
        )
        files = prediction_rows.write(rows, version, progress.predictions)
    appended = commits.append_files(files, progress.predictions)
    if appended is None:
        raise _StaleError
    return replace(
        progress,
        predictions=appended,
        count=progress.count + sum(file.rows for file in files),
        errors=progress.errors + sum(file.errors for file in files),
        size_bytes=progress.size_bytes + sum(file.image_bytes for file in files),
    )
