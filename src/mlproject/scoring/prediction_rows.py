"""Rows of `predictions`: what a version returns for images, checked, with nulls where it must."""

import sys
import tempfile
import warnings
from pathlib import Path

import mlflow
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from mlproject.inference.errors import BAD_ANSWER, MODEL_FAILED, NOT_FINITE
from mlproject.integrations import outages, spark_session
from mlproject.lake.data_files import DataFile
from mlproject.lake.snapshots import Snapshot
from mlproject.scoring import prediction_files, workers
from mlproject.versions import version_files
from mlproject.versions.reference_results import SUM_TOLERANCE
from mlproject.versions.version import Version

RETURNED = (
    "label string, score double, top_labels array<string>, top_scores array<double>, error string"
)
VALUES = ("label", "score", "top_labels", "top_scores")  # null beside an error
LARGEST = sys.float_info.max  # of what is finite; NaN is above it in Spark


def prediction_rows(
    contents: DataFrame, returned: Column, version: Version, *, run_id: str, images_version: int
) -> DataFrame:
    """The rows of `predictions` for images, without its partition columns, and their size_bytes.

    Content is read once and never shuffled.
    `contents` are as `image_bytes.image_contents` gives them, `returned` as `predict` does.
    """
    size = F.coalesce(F.length("content"), F.lit(0)).alias("size_bytes")
    returned = returned.alias("returned")
    rows = contents.select("image_id", F.col("error").alias("unread"), "content", returned, size)
    # An image without content has the error of its file.
    error = F.when(F.col("content").isNull(), F.coalesce("unread", "returned.error"))
    error = error.when(F.col("returned.error") != "", F.col("returned.error")).otherwise(_fault())
    fine = F.col("error").isNull()
    return rows.withColumn("error", error).select(
        "image_id",
        *(F.when(fine, F.col(f"returned.{name}")).alias(name) for name in VALUES),
        "error",
        F.lit(version.model_id).alias("model_id"),
        F.lit(run_id).alias("run_id"),
        F.lit(images_version).cast("long").alias("images_version"),
        F.current_timestamp().alias("scored_at"),
        "size_bytes",
    )


def write(rows: DataFrame, version: Version, since: Snapshot) -> list[DataFile]:
    """Writes `prediction_rows` in tasks, as data files that no commit names yet."""
    partition = {"model_name": version.name, "model_version": str(version.version)}
    write = prediction_files.writer(since.path, since.version, partition)
    with spark_session.settings(rows.sparkSession, workers.batch_settings(rows.sparkSession)):
        written = rows.mapInArrow(write, prediction_files.DESCRIPTION).collect()
    return prediction_files.described(row.description for row in written)


def predict(spark: SparkSession, version: Version, folder: Path, *, guarded: bool) -> Column:
    """What the version returns for `content`: a struct, made in worker processes of its own.

    With `guarded` an image on which the version raises gets the error `model_failed`. `folder` is
    for the version's files, and must last as long as the column is used.
    """
    files, model = Path(tempfile.mkdtemp(dir=folder)), folder / "guarded"
    version_files.download(version, files)
    if guarded:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # advice to authors of versions
            mlflow.pyfunc.save_model(
                model,
                python_model=str(Path(__file__).with_name("guarded_model.py")),
                artifacts={"version": str(files)},
                model_config={"failed": MODEL_FAILED, "machine_faults": outages.MACHINE_FAULTS},
                signature=mlflow.models.get_model_info(str(files)).signature,
                pip_requirements=["mlflow"],
            )
    with workers.environment_of(spark, version):
        uri = str(model if guarded else files)
        udf = mlflow.pyfunc.spark_udf(spark, uri, result_type=RETURNED, env_manager="local")
        # Not deterministic, so that the optimizer never runs it twice for two of its fields.
        returned: Column = udf.asNondeterministic()(F.struct("content"))
        return returned


def model_failed() -> Column:
    """The error `model_failed` for any image, without a worker."""
    return F.from_json(F.lit(f'{{"error": "{MODEL_FAILED}"}}'), RETURNED)


def _fault() -> Column:
    """The error code of a result that is no prediction, whatever made it; null for a good one."""
    label, score = F.col("returned.label"), F.col("returned.score")
    scores, labels = F.col("returned.top_scores"), F.col("returned.top_labels")
    total = F.aggregate(scores, F.lit(0.0), lambda total, score: total + score)
    # MLflow makes NaN null. Source: mlflow.pyfunc, _convert_struct_values
    lost = score.isNull() | F.exists(scores, F.isnull)
    infinite = ~score.between(-LARGEST, LARGEST) | ~total.between(-LARGEST, LARGEST)
    good = (label != "") & score.between(0, 1) & (F.array_min(scores) >= 0)
    good &= (total <= 1 + SUM_TOLERANCE) & (F.size(labels) == F.size(scores))
    bad = ~F.coalesce(good, F.lit(False))
    return F.when(lost | infinite, NOT_FINITE).when(bad, BAD_ANSWER)
