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
from mlproject.inference.errors import MODEL_FAILED
from mlproject.lake import data_files
from mlproject.lake.data_files import DataFile
from mlproject.lake.snapshots import Snapshot, counter, open_table
from mlproject.scoring import coverage, prediction_rows, workers
from mlproject.scoring.coverage import Tables
from mlproject.scoring.decision import Probe, Step, is_wrong_everywhere, next_step
from mlproject.scoring.micro_batches import (
    Attempt,
    MicroBatch,
    Order,
    divide,
    in_order,
    predicted_images,
)
from mlproject.versions.version import Version

BATCH_IMAGES_A_SLOT = 3000  # images a commit and task slot: about 20 s of a CPU core's work
# Bytes a commit and task slot. A part of an ingest commit reads all its data files, so commits of
# ingest's `max_bytes` stay whole.
BATCH_BYTES_A_SLOT = 1024**3
RETRY_WAIT_S = 5  # after a fault of a file system or network
# Images that are scored again before an image or a version is blamed for a crash; and how often
# older ones are taken when these have no bytes any more.
PROBE_IMAGES, PROBES = 64, 3

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
    on_task: Callable[[], None] = lambda: None
    """Called about when a task ends, in another thread."""


@dataclass(frozen=True, slots=True)
class Progress:
    """What one scoring has committed, and the versions from which it goes on."""

    predictions: Snapshot
    images: Snapshot
    to_do: int = 0  # images to predict, at most; those of `count` included
    count: int = 0  # images predicted
    errors: int = 0  # images among them with an error
    size_bytes: int = 0  # bytes of these images
    quarantined: int = 0  # images among them that crashed the workers
    discarded: int = 0  # images whose rows were computed and not committed: another one was faster
    guarded: bool = False  # whether the version has raised, and is scored through the guard since
    overtaken: bool = False  # whether another scorer has committed before the last commit

    @property
    def tables(self) -> Tables:
        """The versions from which it goes on."""
        return Tables(self.images, self.predictions)


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
    commit: Callable[[Sequence[DataFile], Progress, MicroBatch], Snapshot | None]


class StaleError(Exception):
    """Another scorer of the version, or an erasure, came first: pending images are found anew."""

    def __init__(self, discarded: int = 0) -> None:
        super().__init__()
        self.discarded = discarded  # images whose rows were computed in vain


def scored_batches(
    scoring: Scoring,
    progress: Progress,
    pending: pa.Table,
    stop: Callable[[], bool],
    order: Order = "oldest",
    *,
    later: int = 0,
) -> Iterator[Progress]:
    """Scores pending images in micro-batches, and yields the progress after each of them.

    `stop` is called before each micro-batch. When another scorer of the version has committed
    since, a micro-batch is not begun: some of its images may be predicted. `later` is how many
    images follow these, at most.

    Raises:
        RefusedError: The version is at fault.
        MachineError: The machine is.
        StaleError: Another writer came first.
    """
    slots = scoring.spark.sparkContext.defaultParallelism
    batch_images = scoring.settings.batch_images or BATCH_IMAGES_A_SLOT * slots
    batches = divide(pending, batch_images, BATCH_BYTES_A_SLOT * slots)
    progress = replace(progress, to_do=progress.count + pending.num_rows + later)
    queue = deque(map(Attempt, in_order(batches, order)))
    if queue:
        workers.prepare(scoring.spark, scoring.version)
    crashed: list[MicroBatch] = []  # parts that crash workers, no two with an image in common
    while queue and not stop():
        item = queue.popleft()
        is_new = item == Attempt(item.batch) and not crashed  # else what was found out is lost
        if not item.is_suspect:
            try:
                progress = _scored(scoring, progress, item, is_new=is_new)
            except workers.WorkerError as error:
                item = item.failed(error)
            else:
                yield progress
                continue
        crashed = [part for part in crashed if not part.contains(item.batch)]
        is_proven = item.probe != "impossible" and _has_committed(scoring, progress)
        failure = item.failure(
            guarded=progress.guarded,
            suspects=progress.quarantined if is_proven else len(crashed),
            is_proven=is_proven,
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
                _queue_halves(queue, item, depth_first=is_proven)
            case Step.POSTPONE:
                crashed.append(item.batch)
                queue.append(replace(item, probe="none"))
            case Step.PROBE:
                queue.appendleft(replace(item, probe=_probe(scoring, progress)))
            case Step.QUARANTINE:
                queue.appendleft(Attempt(item.batch, is_blamed=True))
            case step:
                _end(scoring.version, item, step, progress.quarantined)
                return


def _queue_halves(queue: deque[Attempt], item: Attempt, *, depth_first: bool) -> None:
    """Puts the halves after the other micro-batches, so that one image does not delay these.

    Halves of a half come after its sibling where the version predicts others: an image is found
    soon, and at each step a half is committed. Where it has predicted nothing they come last: a
    version that crashes on all images is found with fewer of them.
    """
    if depth_first and item.is_part:
        for half in reversed(item.halves()):
            queue.insert(1, half)
    else:
        queue.extend(item.halves())


def _end(version: Version, item: Attempt, step: Step, quarantined: int) -> None:
    """Ends a scoring with an error, unless nobody is at fault."""
    fault = f"{item.crashes} times {item.error}" if item.is_suspect else str(item.error)
    if quarantined:
        fault += f", as with {quarantined} images before, which have the error {MODEL_FAILED}"
    if step is Step.REFUSE:
        raise RefusedError(f"{version.uri} cannot score: {fault}") from item.error
    if step is Step.FAIL:
        probed = ", then with images that were predicted before" if item.probe == "failed" else ""
        raise MachineError(
            f"{version.uri} was not scored, as the machine failed: {fault}{probed}. "
            "What was committed stays. Run the command again"
        ) from item.error
    if step is Step.LEAVE:
        _log.warning("%s: %s; the images that are left keep their errors", version.uri, fault)


def _probe(scoring: Scoring, progress: Progress) -> Probe:
    """Scores images again that the version has predicted, and keeps nothing of it.

    Where the machine fails, and not the version or an image, they fail too.
    """
    probing = replace(scoring, unreadable=image_files.counts(scoring.spark))  # not of the result
    returned = scoring.predict(progress.guarded)
    for batch in predicted_images(scoring.version, progress.tables, PROBE_IMAGES, PROBES):
        try:
            files = _written(probing, progress, batch, returned)
        except workers.WorkerError:
            return "failed"
        data_files.delete(progress.predictions.path, [file.name for file in files])
        if any(file.rows > sum(file.errors.values()) for file in files):
            return "predicted"
    return "impossible"


def _scored(scoring: Scoring, progress: Progress, item: Attempt, *, is_new: bool) -> Progress:
    """The progress after the rows of a micro-batch were written by tasks and committed.

    One that `is_new` is not begun when another scorer of the version has committed. None is where
    the last commit came after one of another scorer: its images may be predicted.
    """
    if progress.overtaken or (is_new and _others_committed(scoring, progress)):
        raise StaleError
    failed = prediction_rows.model_failed
    returned = failed() if item.is_blamed else scoring.predict(progress.guarded)
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
    predictions = scoring.commit(files, progress, item.batch)
    if predictions is None:
        raise StaleError(count)
    return replace(
        progress,
        predictions=predictions,
        count=progress.count + count,
        errors=progress.errors + errors.total(),
        size_bytes=progress.size_bytes + sum(file.image_bytes for file in files),
        quarantined=progress.quarantined + item.is_blamed,
        overtaken=predictions.fills > progress.predictions.fills + 1,
    )


def _others_committed(scoring: Scoring, progress: Progress) -> bool:
    """Whether another scorer of the version has committed; a retry goes on, as it replaces rows."""
    known = progress.predictions
    return not scoring.retries and counter(open_table(known.path), known.filler) != known.fills


def _has_predicted(scoring: Scoring, progress: Progress) -> bool:
    """Whether the version has predicted an image without an error, now or before."""
    return progress.count > progress.errors or coverage.has_predicted(scoring.lake, scoring.version)


def _has_committed(scoring: Scoring, progress: Progress) -> bool:
    """As `_has_predicted`, where the table has it: a retry commits at its end."""
    if scoring.retries:
        return coverage.has_predicted(scoring.lake, scoring.version)
    return _has_predicted(scoring, progress)


def _written(
    scoring: Scoring, progress: Progress, batch: MicroBatch, returned: Column
) -> list[DataFile]:
    """The data files that tasks have written of a micro-batch; no commit names them yet."""
    version, settings = scoring.version, scoring.settings
    with workers.supervised(scoring.spark, settings.task_timeout, settings.on_task):
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
