"""GPUs as Spark assigns them, on a real cluster whose GPUs are made up."""

import json

import pyarrow as pa
import pytest
from pyspark.sql import functions as F

from mlproject import inference
from mlproject.integrations import spark_session
from mlproject.scoring import workers
from tests.support.fresh_processes import run
from tests.support.spark_clusters import cluster, with_defaults
from tests.support.versions import register_devices

pytestmark = pytest.mark.spark

SETTINGS = {
    "spark.executor.cores": 4,
    "spark.executor.memory": "512m",
    "spark.executor.extraJavaOptions": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC",
    "spark.driver.extraJavaOptions": "-XX:TieredStopAtLevel=1",
    "spark.executor.resource.gpu.amount": 2,
    "spark.task.resource.gpu.amount": 1,
    "spark.task.cpus": 2,
    # Both executors are there before the first task starts, so four tasks have four GPUs.
    "spark.scheduler.minRegisteredResourcesRatio": 1.0,
    "spark.sql.codegen.wholeStage": "false",
}
SCORING = """
import sys
from pathlib import Path
from pyspark.sql import functions as F
from mlproject.integrations import spark_session
from mlproject.scoring import prediction_rows, workers
from mlproject.versions.version import Version
with spark_session.session() as spark:
    version = Version("devices", 1, sys.argv[1], pointer=None)
    returned = prediction_rows.predict(spark, version, Path("."), guarded=False)
    with spark_session.settings(spark, workers.batch_settings(spark)):
        images = spark.range(0, 1600, numPartitions=8)
        images = images.select(F.lit(b"." * 100_000).alias("content"), "id")
        # As in scoring, rows come from a join.
        images = images.join(F.broadcast(spark.range(1600)), "id", "left_semi")
        for row in images.select(returned.alias("returned")).collect():
            print(row.returned.label)
"""


@pytest.mark.thorough
def test_each_task_computes_on_the_gpu_that_spark_assigned_to_it(store, tmp_path):
    version = register_devices("devices")
    configured = with_defaults(tmp_path / "conf", SETTINGS)
    with cluster(tmp_path, [["0", "2"], ["3", "1"]], cores=4) as made:
        done = run(SCORING, tmp_path, version.model_id, SPARK_MASTER=made.url, **configured)
    assert 0 == done.returncode, done.stderr[-3000:]
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert 1600 == len(rows)
    assert [[str(row["device"])] for row in rows] == [row["addresses"] for row in rows]
    assert {0, 1, 2, 3} == {row["device"] for row in rows}
    assert {2} == {row["cores"] for row in rows}
    assert {200} == {row["rows"] for row in rows}  # of 100 kB: a CPU task has fewer in a batch


@pytest.mark.parametrize(
    ("size_bytes", "batches"), [(100_000, [84, 84, 84, 48]), (1_000, [300]), (9_000_000, [1, 1])]
)
def test_without_gpus_batches_are_limited_by_their_bytes(spark, size_bytes, batches):
    images = spark.range(sum(batches)).withColumn("content", F.repeat(F.lit("."), size_bytes))
    images = images.join(F.broadcast(spark.range(1000)), "id", "left_semi").coalesce(1)
    with spark_session.settings(spark, workers.batch_settings(spark)):
        sizes = images.mapInArrow(_rows, "rows long").collect()
    assert batches == [row.rows for row in sizes]


def _rows(batches):
    for batch in batches:
        yield pa.RecordBatch.from_pydict({"rows": [batch.num_rows]})


def test_batches_are_larger_for_gpus_unless_a_setting_says_otherwise(spark, monkeypatch):
    assert {} == workers.batch_settings(spark)
    monkeypatch.setattr(inference, "cuda_devices", lambda: 1)  # a driver on this machine
    assert workers.GPU_BATCHES == workers.batch_settings(spark)
    key = "spark.sql.execution.arrow.maxBytesPerBatch"
    monkeypatch.setattr(workers.spark_settings, "BLOBS", {**workers.spark_settings.BLOBS, key: "7"})
    assert {} == workers.batch_settings(spark)
