"""Rows of `predictions`: what a version answers to images, checked, with nulls where it must."""

import sys
from pathlib import Path

import mlflow
from pyspark.sql import Column, DataFrame, Observation, SparkSession
from pyspark.sql import functions as F

from mlproject.inference.errors import BAD_ANSWER, MODEL_FAILED, NOT_FINITE
from mlproject.scoring import workers
from mlproject.versions.reference_results import SUM_TOLERANCE
from mlproject.versions.registry import Version

ANSWER = (
    "label string, score double, top_labels array<string>, top_scores array<double>, error string"
)
LARGEST = sys.float_info.max  # of what is finite; NaN is above it in Spark


def of(contents: DataFrame, answer: Column, version: Version, run_id: str) -> DataFrame:
    """The rows of `predictions` for these images, and their size_bytes.

    Content is read once and never shuffled.
    """
    size = F.coalesce(F.length("content"), F.lit(0)).alias("size_bytes")
    answered = contents.select("image_id", F.col("error").alias("unread"), "content", answer, size)
    # An image that has no content has the error that says why.
    error = F.when(F.col("content").isNull(), F.coalesce("unread", "answer.error"))
    error = error.when(F.col("answer.error") != "", F.col("answer.error")).otherwise(_fault())
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
        "size_bytes",
    )


def _fault() -> Column:
    """The error code of an answer that is none, whatever made it; null for a good one."""
    label, score = F.col("answer.label"), F.col("answer.score")
    scores, labels = F.col("answer.top_scores"), F.col("answer.top_labels")
    total = F.aggregate(scores, F.lit(0.0), lambda total, score: total + score)
    # MLflow makes NaN null. Source: mlflow.pyfunc, _convert_struct_values
    lost = score.isNull() | F.exists(scores, F.isnull)
    infinite = ~score.between(-LARGEST, LARGEST) | ~total.between(-LARGEST, LARGEST)
    good = (label != "") & score.between(0, 1) & (F.array_min(scores) >= 0)
    good &= (total <= 1 + SUM_TOLERANCE) & (F.size(labels) == F.size(scores))
    bad = ~F.coalesce(good, F.lit(False))
    return F.when(lost | infinite, NOT_FINITE).when(bad, BAD_ANSWER)


def answer(spark: SparkSession, version: Version) -> Column:
    """The version's answer to `content`, as a struct column in worker processes of its own."""
    return _answer(spark, version, version.loaded_from)


def guarded(spark: SparkSession, version: Version, folder: Path) -> Column:
    """As `answer`, but an image on which the version raises has the error `model_failed`.

    Args:
        spark: As `answer`.
        version: As `answer`.
        folder: An empty folder for what must lie there as long as the column is used.
    """
    mlflow.pyfunc.save_model(
        folder / "guarded",
        python_model=str(Path(__file__).with_name("guarded_model.py")),
        artifacts={"version": version.loaded_from},
        model_config={"failed": MODEL_FAILED},
        signature=mlflow.models.get_model_info(version.loaded_from).signature,
        pip_requirements=["mlflow"],
    )
    return _answer(spark, version, str(folder / "guarded"))


def failed() -> Column:
    """The answer `model_failed` to any image, without a worker."""
    answer = F.from_json(F.lit(f'{{"error": "{MODEL_FAILED}"}}'), ANSWER)
    return answer.alias("answer")


def _answer(spark: SparkSession, version: Version, uri: str) -> Column:
    with workers.of(spark, version):
        udf = mlflow.pyfunc.spark_udf(spark, uri, result_type=ANSWER, env_manager="local")
        # Not deterministic, so that the optimizer never runs it twice for two of its fields.
        answer: Column = udf.asNondeterministic()(F.struct("content"))
        return answer.alias("answer")


class Counted:
    """Counts the rows and errors of a frame while it is written, without another pass."""

    def __init__(self, frame: DataFrame) -> None:
        self._seen = Observation()
        self.frame = frame.observe(
            self._seen,
            F.count("*").alias("rows"),
            F.count("error").alias("errors"),
            F.coalesce(F.sum("size_bytes"), F.lit(0)).alias("size_bytes"),
        )

    @property
    def rows(self) -> int:
        """How many rows it had."""
        return int(self._seen.get["rows"])

    @property
    def errors(self) -> int:
        """How many of them had an error."""
        return int(self._seen.get["errors"])

    @property
    def size_bytes(self) -> int:
        """The bytes of their images."""
        return int(self._seen.get["size_bytes"])
