"""What a version has not said yet, and making it say it: `images` to rows of `predictions`."""

import re
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path

import mlflow
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from pyspark.sql import Column, DataFrame, Observation, Row, SparkSession
from pyspark.sql import functions as F

from mlproject import image_files, tables
from mlproject.contents import contents
from mlproject.registry import Version

WAVE_IMAGES_A_SLOT = 1000  # images a commit and task slot: about 20 s of a CPU core's work
WAVE_BYTES_A_SLOT = 512 * 1024**2  # bytes a commit and task slot

ANSWER = (
    "label string, score double, top_labels array<string>, top_scores array<double>, error string"
)

# What must be set before a worker process imports a framework. One compute thread a task slot:
# two take twice as long for the whole.
WORKER = {
    "OMP_NUM_THREADS": "1",
    "TF_NUM_INTRAOP_THREADS": "1",
    "TF_NUM_INTEROP_THREADS": "1",
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "KERAS_BACKEND": "tensorflow",
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",  # a version holds no pickle: refuse any
}

_ENVIRONMENT = threading.Lock()  # of the Spark context, which all threads share


@dataclass(frozen=True, slots=True)
class Scored:
    """What one run of a version over what was pending came to."""

    images: int
    """Images scored, each once."""
    errors: int
    """Images among them that got an error code."""
    unreadable: int
    """Images left out: the table has no bytes of them, and their files cannot be read now."""
    seconds: float
    """From looking for what is pending to the last commit."""
    images_version: int
    """The Delta version of `images` that was read."""
    table_version: int
    """The Delta version of `predictions` at the end."""


@dataclass(frozen=True, slots=True)
class Wave:
    """A part of the pending images that is scored and committed at once."""

    times: tuple[int, ...]
    """`ingested_at` of its images, microseconds since 1970: Delta skips files of other times."""
    slice: int
    """Which slice by image_id, from 0."""
    slices: int
    """How many slices; 1 = all images of these times."""
    images: int
    """About how many images."""

    def holds(self) -> Column:
        """A condition on rows of `images`."""
        wanted = F.col("ingested_at").isin([F.timestamp_micros(F.lit(time)) for time in self.times])
        if self.slices == 1:
            return wanted
        return wanted & (F.pmod(F.xxhash64("image_id"), F.lit(self.slices)) == self.slice)


def said(predictions: DataFrame, version: Version) -> DataFrame:
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
    first = F.min(F.struct("ingested_at", "path", "size_bytes")).alias("first")
    distinct = images.groupBy("image_id").agg(first).select("image_id", "first.*")
    return distinct.join(said(predictions, version).select("image_id"), "image_id", "left_anti")


def score(
    spark: SparkSession,
    lake: str,
    version: Version,
    *,
    run_id: str = "",
    wave_images: int = 0,
    on_wave: Callable[[int, int], None] = lambda done, total: None,
) -> Scored:
    """Scores every image that the version has not answered, and appends the answers in waves.

    A kill loses the wave at hand, no more. When another scorer of the same version is faster,
    its rows stand and what is still pending is found anew.

    Args:
        spark: A session with Delta.
        lake: As `lakes.locate` gives it.
        version: A pinned version; its number and model id stand in every row.
        run_id: The MLflow run that the rows name.
        wave_images: Images in one commit, about; 0 = 1000 for each task slot.
        on_wave: Told the images done and the images to do, after each commit.
    """
    began = time.monotonic()
    images = tables.snapshot(spark, lake, "images")
    since = tables.snapshot(spark, lake, "predictions", f"score:{version.model_id}")
    slots = spark.sparkContext.defaultParallelism
    limits = (wave_images or WAVE_IMAGES_A_SLOT * slots, WAVE_BYTES_A_SLOT * slots)
    answer: Column | None = None
    total = errors = 0
    counts = image_files.counts(spark)
    while True:
        todo = pending(images.read(spark), since.read(spark), version).persist()
        try:
            waves = _waves(todo, *limits)
            count = total + sum(wave.images for wave in waves)
            lost = False
            for wave in waves:
                if answer is None:
                    answer = _answer(spark, version)
                table = images.read(spark)
                chosen = F.broadcast(todo.where(wave.holds()).select("image_id", "path"))
                rows = table.where(wave.holds()).join(chosen, ["image_id", "path"], "left_semi")
                rows = _said(contents(rows, table, counts), answer, version, run_id)
                read = F.lit(images.version).cast("long")
                seen = _Seen(rows.withColumn("images_version", read))
                appended = tables.append(seen.frame, since)
                if appended is None:
                    lost = True
                    break
                since = appended
                total, errors = total + seen.rows, errors + seen.errors
                on_wave(total, count)
        finally:
            todo.unpersist()
        if not lost:
            break
        since = tables.snapshot(spark, lake, "predictions", since.filler)
    seconds, unreadable = time.monotonic() - began, counts.value["unreadable"]
    return Scored(total, errors, unreadable, seconds, images.version, since.version)


def total(parts: Sequence[Scored]) -> Scored:
    """Several scorings as one: their sums, and what is left and the versions of the last."""
    return replace(
        parts[-1],
        images=sum(part.images for part in parts),
        errors=sum(part.errors for part in parts),
        unreadable=parts[-1].unreadable,
        seconds=sum(part.seconds for part in parts),
    )


def unmet_requirements(version: Version) -> list[str]:
    """The version's pinned packages that this environment has in another version, or not at all.

    `spark_udf` runs a version in the workers' own environment: environments of its own cannot
    take binary input there. Source: MLflow issue 18722.

    Returns:
        One phrase a package, such as "torch 2.15.0 (here 2.13.0)"; empty when all agree.
    """
    with tempfile.TemporaryDirectory() as folder:
        files = get_artifact_repository(version.loaded_from)
        copy = files.download_artifacts("requirements.txt", dst_path=folder)
        lines = Path(copy).read_text(encoding="utf-8").splitlines()
    pins = [re.match(r"([\w.-]+)==([\w.]+)", line) for line in lines]
    unmet = []
    for pin in filter(None, pins):
        name, wanted = pin.groups()
        try:
            here = metadata.version(name).split("+")[0]
        except metadata.PackageNotFoundError:
            here = "absent"
        if here != wanted:
            unmet.append(f"{name} {wanted} (here {here})")
    return unmet


class _Seen:
    """Counts the rows and errors of a frame while it is written, without another pass."""

    def __init__(self, frame: DataFrame) -> None:
        self._seen = Observation()
        self.frame = frame.observe(
            self._seen, F.count("*").alias("rows"), F.count("error").alias("errors")
        )

    @property
    def rows(self) -> int:
        return int(self._seen.get["rows"])

    @property
    def errors(self) -> int:
        return int(self._seen.get["errors"])


def _waves(todo: DataFrame, most_images: int, most_bytes: int) -> list[Wave]:
    """Whole ingest commits together up to the limits; a commit above them in slices."""
    commits = (
        todo.groupBy(F.unix_micros("ingested_at").alias("time"))
        .agg(F.count("*").alias("images"), F.sum("size_bytes").alias("size_bytes"))
        .orderBy("time")
        .collect()
    )
    waves: list[Wave] = []
    together: list[Row] = []
    for commit in commits:
        parts = max(-(-commit.images // most_images), -(-commit.size_bytes // most_bytes))
        if parts > 1:
            share = -(-commit.images // parts)
            waves += [Wave((commit.time,), part, parts, share) for part in range(parts)]
            continue
        images = sum(row.images for row in together) + commit.images
        size = sum(row.size_bytes for row in together) + commit.size_bytes
        if together and (images > most_images or size > most_bytes):
            waves.append(_whole(together))
            together = []
        together.append(commit)
    return [*waves, _whole(together)] if together else waves


def _whole(commits: list[Row]) -> Wave:
    times = tuple(commit.time for commit in commits)
    return Wave(times, 0, 1, sum(commit.images for commit in commits))


def _said(contents: DataFrame, answer: Column, version: Version, run_id: str) -> DataFrame:
    """The rows of `predictions` for these images; content is read once and never shuffled."""
    answered = contents.select("image_id", F.col("error").alias("unread"), "content", answer)
    # An image that has no content has the error that says why.
    error = F.when(F.col("content").isNull(), F.coalesce("unread", "answer.error"))
    error = error.otherwise(F.when(F.col("answer.error") != "", F.col("answer.error")))
    fine = F.col("error").isNull()
    return answered.withColumn("error", error).select(
        "image_id",
        F.lit(version.name).alias("model_name"),
        F.lit(version.version).alias("model_version"),
        F.when(fine, F.col("answer.label")).alias("label"),
        F.when(fine, F.col("answer.score")).alias("score"),
        F.when(fine, F.col("answer.top_labels")).alias("top_labels"),
        F.when(fine, F.col("answer.top_scores")).alias("top_scores"),
        "error",
        F.lit(version.model_id).alias("model_id"),
        F.lit(run_id).alias("run_id"),
        F.current_timestamp().alias("scored_at"),
    )


def _answer(spark: SparkSession, version: Version) -> Column:
    """The version's answer to `content`, as a struct column in worker processes of its own."""
    with _workers_of(spark, version):
        udf = mlflow.pyfunc.spark_udf(
            spark, version.loaded_from, result_type=ANSWER, env_manager="local"
        )
        # Not deterministic, so that the optimizer never runs it twice for two of its fields.
        answer: Column = udf.asNondeterministic()(F.struct("content"))
        return answer.alias("answer")


@contextmanager
def _workers_of(spark: SparkSession, version: Version) -> Iterator[None]:
    """Gives the functions built in the block worker processes that no other version shares.

    Spark pools its Python workers by executable and environment.
    Source: Spark, SparkEnv.createPythonWorker.
    """
    context = spark.sparkContext
    with _ENVIRONMENT:
        before = context.environment
        # Another dictionary: a thread that builds a function meanwhile goes through this one.
        context.environment = {**before, **WORKER, "MLPROJECT_MODEL_ID": version.model_id}
        try:
            yield
        finally:
            context.environment = before
