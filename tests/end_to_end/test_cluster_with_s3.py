"""`train`, `quantize` and `watch` on a standalone cluster, with source and lake in S3."""

import signal

import pytest

from mlproject.lake import queries
from mlproject.training import drawn_images
from tests.conftest import output_of, start_command
from tests.support import s3_servers
from tests.support.spark_clusters import cluster, with_defaults
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.spark, pytest.mark.slow, pytest.mark.s3, pytest.mark.thorough]

SETTINGS = {
    "spark.executor.memory": "512m",
    "spark.executor.extraJavaOptions": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC",
    "spark.driver.extraJavaOptions": "-XX:TieredStopAtLevel=1",
    "spark.sql.codegen.wholeStage": "false",
    "spark.sql.shuffle.partitions": 2,
}


@pytest.fixture
def source(server, empty_bucket, tmp_path):
    """A bucket with drawn photos in four folders."""
    folder = tmp_path / "photos"
    drawn_images.draw(folder, images=60)
    files = [file for file in folder.rglob("*") if file.is_file()]
    contents = {f"photos/{file.relative_to(folder)}": file.read_bytes() for file in files}
    s3_servers.put(server, empty_bucket, **contents)
    return f"s3://{empty_bucket}/photos"


@pytest.fixture
def start(source, store, tmp_path):
    """Starts a command in the cluster's session, whose processes find the bucket too."""
    environment = with_defaults(tmp_path / "conf", SETTINGS)
    with cluster(tmp_path, [["0"]], cores=1) as running:

        def start(name, *words):
            return start_command(
                name, *words, cwd=tmp_path, SPARK_MASTER=running.url, **environment
            )

        yield start


def count(lake, sql):
    return queries.query(lake, f"SELECT count(*) AS n {sql}", ["predictions"])["n"][0].as_py()


def test_a_network_is_trained_quantized_and_followed(start, source):
    lake = f"{source.removesuffix('/photos')}/lake"
    here = ("--lake", lake)
    output_of(start("ingest", "--source", source, "--settle", "0", *here))
    small = ("--image_size", "32", "--epochs", "2", "--name", "trained")
    trained = output_of(start("train", "--framework", "keras", "--weights", "none", *small, *here))
    assert "models:/trained/1" in trained
    quantized = ("--precision", "float16", "--min_agreement", "0.5")
    assert "models:/trained/2" in output_of(
        start("quantize", "--model", "models:/trained/1", *quantized, *here)
    )
    output_of(start("promote", "--model", "models:/trained/2", "--gate", "off", *here))
    every = ("--pointers", "models:/trained@champion", "--interval", "1", "--idle", "600")
    watching = start("watch", "--source", source, *every, *here)
    served = "FROM rollouts WHERE state = 'serving'"
    wait_until(lambda: queries.query(lake, f"SELECT 1 {served}", ["rollouts"]).num_rows)
    watching.send_signal(signal.SIGTERM)
    output_of(watching)
    images = queries.query(lake, "SELECT DISTINCT image_id FROM images", ["images"]).num_rows
    assert images == count(lake, "FROM predictions WHERE model_version = 2")
    assert "secret" not in trained
