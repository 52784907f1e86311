"""How many threads Spark's workers compute with after a version was scored in them."""

import pandas as pd
from pyspark.sql import SparkSession

from mlproject.scoring import workers
from mlproject.versions.version import Version


def session_threads(spark: SparkSession, version: Version) -> list[tuple[int, int]]:
    """For each session of ONNX Runtime in a worker: its threads, and those TensorFlow would use."""

    def look(batches):  # in a worker
        import gc
        import os

        import onnxruntime

        kind = onnxruntime.InferenceSession
        sessions = [one for one in gc.get_objects() if type(one) is kind]
        threads = [one.get_session_options().intra_op_num_threads for one in sessions]
        for _ in batches:
            tensorflow = int(os.environ["TF_NUM_INTRAOP_THREADS"])
            yield pd.DataFrame({"onnxruntime": threads, "tensorflow": tensorflow})

    with workers.environment_of(spark, version):
        found = spark.range(1, numPartitions=1).mapInPandas(look, "onnxruntime int, tensorflow int")
    return [tuple(row) for row in found.collect()]
