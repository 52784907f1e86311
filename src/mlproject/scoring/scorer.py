"""What a version has not said yet, and making it say it: `images` to rows of `predictions`."""

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from mlproject.errors import RefusedError
from mlproject.images import image_files
from mlproject.images.image_bytes import image_contents
from mlproject.lake import spark_tables
from mlproject.lake.snapshots import Snapshot
from mlproject.scoring import prediction_rows, workers
from mlproject.scoring.micro_batches import Wave, first, waves
from mlproject.versions.registry import Version

WAVE_IMAGES_A_SLOT = 1000  # images a commit and task slot: about 20 s of a CPU core's work
WAVE_BYTES_A_SLOT = 512 * 1024**2  # bytes a commit and task slot
TRIES = 2  # of a wave whose worker died: once may be the machine's fault
SUSPECTS = 3  # images a scoring that may be to blame for dead workers, and not the version


@dataclass(frozen=True, slots=True)
class Settings:
    """How much one scoring does, and how."""

    run_id: str = ""
    """The MLflow run that the rows name."""
    batch_images: int = 0
    """Images in one commit, about; 0 = 1000 for each task slot."""
    max_images: int = 0
    """Images to score at most; 0 = all that are pending."""
    max_bytes: int = 0
    """Bytes to read at most, and one image at least; 0 = no limit."""
    task_timeout: float = 600
    """Seconds in which some task of a wave must end, or its workers hang."""
    quarantine: bool = False
    """Whether an image that kills the workers is found, by halving its wave, and gets the error
    `model_failed` once the version has answered others: for versions known to be well."""


@dataclass(frozen=True, slots=True)
class ScoringResult:
    """What one run of a version over what was pending came to."""

    images: int
    """Images scored, each once."""
    errors: int
    """Images among them that got an error code."""
    size_bytes: int
    """Bytes of these images."""
    unreadable: int
    """Images left out: the table has no bytes of them, and their files cannot be read now."""
    seconds: float
    """From looking for what is pending to the last commit."""
    images_version: int
    """The Delta version of `images` that was read."""
    table_version: int
    """The Delta version of `predictions` at the end."""


def version_predictions(predictions: DataFrame, version: Version) -> DataFrame:
    """The rows of `predictions` that this very version made."""
    return predictions.where(
        (F.col("model_name") == version.name)
        & (F.col("model_version") == version.version)
        & (F.col("model_id") == version.model_id)
    )


def pending(images: DataFrame, predictions: DataFrame, version: Version) -> DataFrame:
    """The images that the version has not answered: image_id, ingested_at, path, size_bytes.

    One row an image: of several files with the same bytes the first one stands for all. Reads
    no content.
    """
    oldest = F.min(F.struct("ingested_at", "path", "size_bytes")).alias("oldest")
    distinct = images.groupBy("image_id").agg(oldest).select("image_id", "oldest.*")
    return distinct.join(
        version_predictions(predictions, version).select("image_id"), "image_id", "left_anti"
    )


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
    """Scores the images that the version has not answered, and appends the answers in waves.

    A kill loses the wave at hand, no more. When another scorer of the same version is faster,
    its rows stand and what is still pending is found anew. An image on which the version raises
    gets the error `model_failed`.

    Args:
        spark: A session with Delta.
        lake: As `lakes.locate` gives it.
        version: A pinned version; its number and model id stand in every row.
        settings: How much is scored, and how.
        only: The image_ids to score; None = all.
        stop: Asked before each wave.
        on_progress: Told the images done and the images to do, after each commit.

    Raises:
        RefusedError: The version cannot be loaded, or its workers die or hang repeatedly; where
            images are isolated: die of more than three of them, or of all that there are.
    """
    with tempfile.TemporaryDirectory() as folder:
        run = _Run(spark, lake, version, settings, Path(folder), on_progress)
        since = spark_tables.snapshot(spark, lake, "predictions", f"score:{version.model_id}")
        finished = False
        while not finished:
            todo = run.pending(since, only).persist()
            try:
                since, finished = run.through(todo, since, stop)
            finally:
                todo.unpersist()
        return run.scored(since)


def total(parts: Sequence[ScoringResult]) -> ScoringResult:
    """Several scorings as one: their sums, and what is left and the versions of the last."""
    return replace(
        parts[-1],
        images=sum(part.images for part in parts),
        errors=sum(part.errors for part in parts),
        unreadable=parts[-1].unreadable,
        seconds=sum(part.seconds for part in parts),
    )


class _Run:
    """One scoring at work: what all its waves share, and what they came to."""

    def __init__(
        self,
        spark: SparkSession,
        lake: str,
        version: Version,
        settings: Settings,
        folder: Path,
        on_progress: Callable[[int, int], None],
    ) -> None:
        self.spark, self.lake, self.version = spark, lake, version
        self.settings, self.folder, self.on_progress = settings, folder, on_progress
        self.began = time.monotonic()
        self.images = spark_tables.snapshot(spark, lake, "images")
        self.counts = image_files.counts(spark)
        self.done = self.errors = self.size_bytes = self.count = 0
        self.answer: Column | None = None
        self.guarded = False
        self.suspects: list[Wave] = []
        self.blamed = 0

    def pending(self, since: Snapshot, only: Sequence[str] | None) -> DataFrame:
        """What is to be scored of that which is pending, within the limits."""
        todo = pending(self.images.read(self.spark), since.read(self.spark), self.version)
        if only is not None:
            ids = [(image_id,) for image_id in only]
            chosen = self.spark.createDataFrame(ids, "image_id string")
            todo = todo.join(F.broadcast(chosen), "image_id", "left_semi")
        images, size_bytes = self.settings.max_images, self.settings.max_bytes
        return first(
            todo,
            images and max(1, images - self.done),
            size_bytes and max(1, size_bytes - self.size_bytes),
        )

    def through(
        self, todo: DataFrame, since: Snapshot, stop: Callable[[], bool]
    ) -> tuple[Snapshot, bool]:
        """Scores what is to be scored; whether that is the end, or another scorer came first."""
        slots = self.spark.sparkContext.defaultParallelism
        images = self.settings.batch_images or WAVE_IMAGES_A_SLOT * slots
        found = waves(todo, images, WAVE_BYTES_A_SLOT * slots)
        self.count, self.suspects = self.done + sum(wave.images for wave in found), []
        for wave in found:
            if stop():
                return since, True
            appended = self.append(wave, todo, since, stop)
            if appended is None:
                return spark_tables.snapshot(
                    self.spark, self.lake, since.table, since.filler
                ), False
            since = appended
        if self.suspects:  # the version has answered no image: this is no fault of one
            raise self._refused(f"{TRIES} times a worker process died")
        return since, True

    def append(
        self, wave: Wave, todo: DataFrame, since: Snapshot, stop: Callable[[], bool]
    ) -> Snapshot | None:
        """Scores a wave in one commit, or several; None when another scorer came first."""
        try:
            appended = self._tried(wave, todo, since)
        except workers.CrashedError as error:
            self._require_isolation(error)
            appended = self._halved(wave, todo, since, stop)
        while self.suspects and appended is not None and self.done > self.errors:
            appended = self._append(self.suspects.pop(), todo, appended, prediction_rows.failed())
            self.blamed += 1
        return appended

    def _halved(
        self, wave: Wave, todo: DataFrame, since: Snapshot, stop: Callable[[], bool]
    ) -> Snapshot | None:
        """Scores a wave that kills the workers in halves of halves; notes single images that do."""
        left = wave.halves(todo)
        while left:
            killed: list[Wave] = []
            for half in left:
                if stop():
                    return since
                try:
                    appended = self._tried(half, todo, since)
                except workers.CrashedError as error:
                    self._require_isolation(error, len(killed))
                    killed.append(half)
                    continue
                if appended is None:
                    return None
                since = appended
            self.suspects += [half for half in killed if half.images == 1]
            left = [part for half in killed if half.images > 1 for part in half.halves(todo)]
        return since

    def _require_isolation(self, error: workers.CrashedError, killed: int = 0) -> None:
        """Raises RefusedError where it is the version's fault that its workers die."""
        hung = isinstance(error, workers.HungError)
        known = killed + len(self.suspects) + self.blamed  # at least so many images do it
        if hung or known == SUSPECTS or not self.settings.quarantine:
            raise self._refused(f"{TRIES} times {error}") from error

    def _tried(self, wave: Wave, todo: DataFrame, since: Snapshot) -> Snapshot | None:
        crashes = 0
        while True:
            if self.answer is None:
                self.answer = prediction_rows.answer(self.spark, self.version)
            try:
                return self._append(wave, todo, since, self.answer)
            except workers.RaisedError as error:
                if self.guarded:  # what raises now is not the answer to an image
                    raise self._refused(str(error)) from error
                self.guarded = True
                self.answer = prediction_rows.guarded(self.spark, self.version, self.folder)
            except workers.CrashedError:
                crashes += 1
                if crashes == TRIES:
                    raise

    def _append(
        self, wave: Wave, todo: DataFrame, since: Snapshot, answer: Column
    ) -> Snapshot | None:
        with workers.watched(self.spark, self.settings.task_timeout):
            table = self.images.read(self.spark)
            chosen = F.broadcast(wave.of(todo).select("image_id", "path"))
            rows = wave.of(table).join(chosen, ["image_id", "path"], "left_semi")
            rows = image_contents(rows, table, self.counts)
            rows = prediction_rows.of(rows, answer, self.version, self.settings.run_id)
            read = F.lit(self.images.version).cast("long")
            seen = prediction_rows.Counted(rows.withColumn("images_version", read))
            appended = spark_tables.append(seen.frame.drop("size_bytes"), since)
        if appended is not None:
            self.done, self.errors = self.done + seen.rows, self.errors + seen.errors
            self.size_bytes += seen.size_bytes
            self.on_progress(self.done, self.count)
        return appended

    def _refused(self, why: str) -> RefusedError:
        return RefusedError(f"{self.version.uri} cannot score: {why}")

    def scored(self, since: Snapshot) -> ScoringResult:
        """What it came to."""
        return ScoringResult(
            self.done,
            self.errors,
            self.size_bytes,
            self.counts.value["unreadable"],
            time.monotonic() - self.began,
            self.images.version,
            since.version,
        )
