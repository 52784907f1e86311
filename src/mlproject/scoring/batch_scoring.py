"""Scores micro-batches one after the other: what fails is retried or split, or ends the scoring."""

import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
from pyspark.sql import Column, SparkSession

from mlproject.errors import MachineError, RefusedError
from mlproject.images import image_files
from mlproject.images.image_bytes import image_contents, inline_files
from mlproject.lake import data_files
from mlproject.lake.data_files import DataFile
from mlproject.lake.snapshots import Snapshot
from mlproject.scoring import coverage, prediction_rows, workers
from mlproject.scoring.decision import Probe, Step, is_wrong_everywhere, next_step
from mlproject.scoring.micro_batches import Attempt, MicroBatch, divide, predicted_images
from mlproject.versions.version import Version

BATCH_IMAGES_A_SLOT = 3000  # images a commit and task slot: about 20 s of a CPU core's work
# Bytes a commit and task slot. A part of an ingest commit reads all its data files, so commits of
# ingest's `max_bytes` stay whole.
BATCH_BYTES_A_SLOT = 1024**3
RETRY_WAIT_S = 5  # after a fault of a file system or network
PROBE_IMAGES = 64  # that are scored again before an image or a version is blamed for a crash

_log = logging.getLogger(__name__)


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


@dataclass(frozen=True, slots=True)
class Scoring:
    """What is the same for all micro-batches of one scoring."""

    spark: SparkSession
    lake: str
    version: Version
    settings: Settings
    unreadable: Any  # Spark's accumulator of the images that are left out
    predict: Callable[[bool], Column]  # what the version returns, given whether it is guarded
    retries: bool  # whether the version has an error for all images to score
    # What is done with a micro-batch's files; None = its rows are to be computed anew.
    commit: Callable[[Sequence[DataFile], Snapshot], Snapshot | None]


@dataclass(frozen=True, slots=True)
class Progress:
    """What one scoring has committed, and the versions from which it goes on."""

    predictions: Snapshot
    images: Snapshot
    to_do: int = 0  # images to predict, those of `count` included
    count: int = 0  # images predicted
    errors: int = 0  # images among them with an error
    size_bytes: int = 0  # bytes of these images
    quarantined: int = 0  # images among them that crashed the workers
    guarded: bool = False  # whether the version has raised, and is scored through the guard since


class StaleError(Exception):
    """Another scorer of the version, or an erasure, came first: pending images are found anew."""


def scored_batches(
    scoring: Scoring, progress: Progress, pending: pa.Table, stop: Callable[[], bool]
) -> Iterator[Progress]:
    """Scores pending images in micro-batches, and yields the progress after each of them.

    `stop` is called before each micro-batch.

    Raises:
        RefusedError: The version is at fault.
        MachineError: The machine is.
        StaleError: Another writer came first.
    """
    slots = scoring.spark.sparkContext.defaultParallelism
    batch_images = scoring.settings.batch_images or BATCH_IMAGES_A_SLOT * slots
    batches = divide(pending, batch_images, BATCH_BYTES_A_SLOT * slots)
    progress = replace(progress, to_do=progress.count + sum(batch.images for batch in batches))
    queue = deque(map(Attempt, batches))
    if queue:
        workers.prepare(scoring.spark, scoring.version)
    crashed: list[MicroBatch] = []  # parts that crash workers, no two with an image in common
    while queue and not stop():
        item = queue.popleft()
        if not item.is_suspect:
            returned = scoring.predict(progress.guarded)
            try:
                progress = _scored(scoring, progress, item, returned)
            except workers.WorkerError as error:
                item = item.failed(error)
            else:
                yield progress
                continue
        crashed = [part for part in crashed if not part.contains(item.batch)]
        failure = item.failure(
            guarded=progress.guarded,
            suspects=len(crashed) + progress.quarantined,
            has_predicted=_has_predicted(scoring, progress),
            have_errors=scoring.retries,
            others_left=any(not other.is_suspect for other in queue),
            stopped=stop(),
        )
        match next_step(failure):
            case Step.GUARD | Step.RETRY as step:
                progress = replace(progress, guarded=progress.guarded or step is Step.GUARD)
                queue.appendleft(item)
                if failure.fault == "machine":
                    time.sleep(RETRY_WAIT_S)
            case Step.SPLIT:
                crashed.append(item.batch)
                _queue_halves(queue, item, depth_first=failure.has_predicted)
            case Step.POSTPONE:
                crashed.append(item.batch)
                queue.append(item)
            case Step.PROBE:
                queue.appendleft(replace(item, probe=_probe(scoring, progress, item)))
            case Step.QUARANTINE:
                failed = prediction_rows.model_failed()
                progress = _scored(scoring, progress, item, failed)
                progress = replace(progress, quarantined=progress.quarantined + 1)
                yield progress
            case step:
                _end(scoring.version, item, step)
                return


def _queue_halves(queue: deque[Attempt], item: Attempt, *, depth_first: bool) -> None:
    """Puts the halves after the other micro-batches, so that one image does not delay these.

    Depth first an image is found before the limit of crashes is reached; breadth first a version
    that crashes on all images is found with fewer of them.
    """
    if depth_first and item.is_part:
        queue.extendleft(reversed(item.halves()))
    else:
        queue.extend(item.halves())


def _end(version: Version, item: Attempt, step: Step) -> None:
    """Ends a scoring with an error, unless nobody is at fault."""
    times = f"{item.crashes} times " if item.is_suspect else ""
    also = ", then with images that were predicted before" if item.probe == "failed" else ""
    fault = f"{times}{item.error}{also}"
    if step is Step.REFUSE:
        raise RefusedError(f"{version.uri} cannot score: {fault}") from item.error
    if step is Step.FAIL:
        raise MachineError(
            f"{version.uri} was not scored, as the machine failed: {fault}. "
            "What was committed stays. Run the command again"
        ) from item.error
    if step is Step.LEAVE:
        _log.warning("%s: %s; the images that are left keep their errors", version.uri, fault)


def _probe(scoring: Scoring, progress: Progress, item: Attempt) -> Probe:
    """Scores as many images again as have failed, of those that the version has predicted.

    Nothing of it is kept. Where the machine fails, and not the version or an image, they fail too.
    """
    wanted = min(item.batch.images, PROBE_IMAGES)
    predicted = predicted_images(scoring.version, progress.images, progress.predictions, wanted)
    if not predicted.images:  # what was predicted is not committed yet
        return "answered"
    counts = image_files.counts(scoring.spark)
    returned = scoring.predict(progress.guarded)
    try:
        files = _written(replace(scoring, unreadable=counts), progress, predicted, returned)
    except workers.WorkerError:
        return "failed"
    data_files.delete(progress.predictions.path, [file.name for file in files])
    return "answered" if any(file.rows > sum(file.errors.values()) for file in files) else "failed"


def _scored(scoring: Scoring, progress: Progress, item: Attempt, returned: Column) -> Progress:
    """The progress after the rows of a micro-batch were written by tasks and committed."""
    files = _written(scoring, progress, item.batch, returned)
    count, errors = sum(file.rows for file in files), Counter[str]()
    for file in files:
        errors.update(file.errors)
    if is_wrong_everywhere(count, errors) and not _has_predicted(scoring, progress):
        data_files.delete(progress.predictions.path, [file.name for file in files])
        codes = ", ".join(f"{number} {code}" for code, number in errors.most_common())
        reason = f": {item.error}" if item.error else ""
        raise RefusedError(
            f"{scoring.version.uri} cannot score: it predicts no image of its first micro-batch "
            f"({codes}){reason}"
        )
    predictions = scoring.commit(files, progress.predictions)
    if predictions is None:
        raise StaleError
    return replace(
        progress,
        predictions=predictions,
        count=progress.count + count,
        errors=progress.errors + errors.total(),
        size_bytes=progress.size_bytes + sum(file.image_bytes for file in files),
    )


def _has_predicted(scoring: Scoring, progress: Progress) -> bool:
    """Whether the version has predicted an image without an error, now or before."""
    return progress.count > progress.errors or coverage.has_predicted(scoring.lake, scoring.version)


def _written(
    scoring: Scoring, progress: Progress, batch: MicroBatch, returned: Column
) -> list[DataFile]:
    """The data files that tasks have written of a micro-batch; no commit names them yet."""
    version, settings = scoring.version, scoring.settings
    with workers.supervised(scoring.spark, settings.task_timeout):
        files = inline_files(progress.images, *batch.ingested())
        if files:
            rows = batch.rows(progress.images.read_files(scoring.spark, files))
        else:
            images = progress.images.read(scoring.spark)
            rows = image_contents(batch.rows(images), images, scoring.unreadable)
        rows = prediction_rows.prediction_rows(
            rows,
            returned,
            version,
            run_id=settings.run_id,
            images_version=progress.images.version,
        )
        return prediction_rows.write(rows, version, progress.predictions)
