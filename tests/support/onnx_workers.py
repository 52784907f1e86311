"""What Spark's workers hold of ONNX Runtime after a version was scored in them."""

import pandas as pd
from pyspark.sql import SparkSession

from mlproject.scoring import workers
from mlproject.versions.version import Version


def session_threads(spark: SparkSession, version: Version) -> list[int]:
    """The compute threads of each session of ONNX Runtime in the workers of a version."""

    def look(batches):  # in a worker
        import gc

        import onnxruntime

        kind = onnxruntime.InferenceSession
        sessions = [one for one in gc.get_objects() if type(one) is kind]
        threads = [one.get_session_options().intra_op_num_threads for one in sessions]
        for _ in batches:
            yield pd.DataFrame({"threads": threads})

    with workers.environment_of(spark, version):
        found = spark.range(1, numPartitions=1).mapInPandas(look, "threads int")
    return [row.threads for row in found.collect()]
