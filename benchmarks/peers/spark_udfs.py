"""Three functions of Spark and MLflow over the Delta table, in a session with our settings.

- pandas_udf: a pandas UDF over batches. With engine native it is the way of the reference
  notebooks: the usual transforms, and eager torch or `predict` of Keras. Source: Databricks, Deep
  learning model inference workflow.
- spark_udf: `mlflow.pyfunc.spark_udf` of the version.
- predict_batch_udf: `pyspark.ml.functions.predict_batch_udf`.

Rows are written to Parquet files, without a commit. A worker keeps its network for later tasks,
but in spark_udf, which loads it in each task.
"""

import time
from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd
from pyspark.sql import Column, SparkSession
from pyspark.sql import functions as F

from peers import networks, notebooks, runs

RETURNED = "label string, score double"
VERSION_RETURNED = f"{RETURNED}, top_labels array<string>, top_scores array<double>, error string"
# With Spark's 128 MB two cores get three tasks. Source: Spark, Performance Tuning.
PARTITION_BYTES = 32 * 1024 * 1024


def main() -> None:
    """Measures one of the functions."""
    began = time.monotonic()
    peers = {
        "pandas_udf": pandas_udf,
        "spark_udf": spark_udf,
        "predict_batch_udf": predict_batch_udf,
    }
    given = runs.arguments(*peers)
    from mlproject.integrations.spark_session import session

    with session("benchmark") as spark:
        spark.conf.set("spark.sql.files.maxPartitionBytes", str(PARTITION_BYTES))
        returned = peers[given.peer](spark, given.version).alias("returned")

        def run(out: str) -> None:
            rows = spark.read.format("delta").load("lake/images").select("image_id", returned)
            rows.select("image_id", "returned.label", "returned.score").write.parquet(out)

        runs.print_runs(began, given.out, run)


# The functions are not deterministic for Spark, so that it never runs one for each of its fields.


def pandas_udf(spark: SparkSession, version: str) -> Column:
    """What a pandas UDF over batches of rows returns; it loads the network once."""
    is_native = networks.version_config(version)["engine"] == "native"
    load = notebooks.network if is_native else networks.network

    def predict(batches: Iterator[pd.Series]) -> Iterator[pd.DataFrame]:
        network = load(version)
        for batch in batches:
            yield _frame(*network(list(batch)))

    returned: Column = F.pandas_udf(predict, RETURNED).asNondeterministic()("content")  # type: ignore[attr-defined] # absent in pyspark's types
    return returned


def spark_udf(spark: SparkSession, version: str) -> Column:
    """What MLflow's function for a version returns."""
    import mlflow

    udf = mlflow.pyfunc.spark_udf(spark, version, result_type=VERSION_RETURNED, env_manager="local")
    returned: Column = udf.asNondeterministic()(F.struct("content"))
    return returned


def predict_batch_udf(spark: SparkSession, version: str) -> Column:
    """What Spark's function for batches of numpy arrays returns."""
    from pyspark.ml.functions import predict_batch_udf as batch_udf
    from pyspark.sql.types import DoubleType, StringType, StructType

    def make_predict() -> Callable[[np.ndarray], dict[str, np.ndarray]]:
        network = networks.network(version)

        def predict(contents: np.ndarray) -> dict[str, np.ndarray]:
            labels, scores = network(list(contents))
            return {"label": np.array(labels), "score": np.array(scores)}

        return predict

    size = networks.version_config(version)["batch_size"]
    kind = StructType().add("label", StringType()).add("score", DoubleType())
    udf = batch_udf(make_predict, return_type=kind, batch_size=size)
    return udf.asNondeterministic()("content")


def _frame(labels: list[str], scores: list[float]) -> pd.DataFrame:
    return pd.DataFrame({"label": labels, "score": scores})


if __name__ == "__main__":
    main()
