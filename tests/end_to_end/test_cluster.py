"""Commands as processes on a standalone cluster, with source and lake in S3.

The cluster has two workers with a made-up GPU each.
"""

import json
import os
import signal
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from mlproject.lake import snapshots
from mlproject.training import drawn_images
from tests.conftest import output_of, photo, start_command
from tests.support import s3_servers
from tests.support.fresh_processes import run_commands
from tests.support.lakes import frame
from tests.support.spark_clusters import cluster, with_defaults
from tests.support.versions import register_devices
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.spark, pytest.mark.slow, pytest.mark.s3]

SETTINGS = {
    "spark.executor.cores": 1,
    "spark.executor.memory": "512m",
    "spark.executor.extraJavaOptions": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC",
    "spark.driver.extraJavaOptions": "-XX:TieredStopAtLevel=1",
    "spark.executor.resource.gpu.amount": 1,
    "spark.task.resource.gpu.amount": 1,
    "spark.sql.codegen.wholeStage": "false",
    "spark.sql.shuffle.partitions": 2,
}
COME_AND_GO = {
    "spark.dynamicAllocation.enabled": "true",
    "spark.dynamicAllocation.shuffleTracking.enabled": "true",
    "spark.dynamicAllocation.shuffleTracking.timeout": "1s",
    "spark.dynamicAllocation.executorIdleTimeout": "1s",
}


@pytest.fixture(scope="module")
def bucket(server):
    """A bucket with 40 drawn photos in four folders."""
    with s3_servers.new_bucket(server, "cluster") as name, TemporaryDirectory() as folder:
        drawn_images.draw(Path(folder), images=40)
        files = Path(folder).rglob("*_00*")  # without copies and broken ones
        contents = {f"photos/{file.relative_to(folder)}": file.read_bytes() for file in files}
        s3_servers.put(server, name, **contents)
        yield f"s3://{name}"


@pytest.fixture(scope="module")
def made(bucket, tmp_path_factory):
    # Its processes get the environment with the bucket's keys.
    with cluster(tmp_path_factory.mktemp("cluster"), [["0"], ["1"]], cores=1) as running:
        yield running


@pytest.fixture(scope="module")
def environment(made, tmp_path_factory):
    """Of drivers whose session is the cluster's."""
    folder = tmp_path_factory.mktemp("settings")
    return {"SPARK_MASTER": made.url, **with_defaults(folder / "conf", SETTINGS)}


@pytest.fixture(scope="module")
def here(bucket):
    """The words with which a command gets the lake."""
    return "--lake", f"{bucket}/lake"


@pytest.fixture(scope="module")
def lake(environment, here, bucket, store):
    """A lake with the photos of the bucket."""
    given = ("ingest", "--source", f"{bucket}/photos", "--settle", "0")
    assert "Ingested 40 of 40" in run_commands(store, [given], *here, **environment)
    return f"{bucket}/lake"


def answers(lake, version):
    """The labels of a version's predictions, decoded; each image has one, without an error."""
    if snapshots.newest(lake, "predictions") is None:
        return []
    rows = frame(lake, "predictions")
    rows = rows[rows.model_id == version.model_id]
    assert not rows.image_id.duplicated().any()
    assert not rows.error.notna().any()
    return [json.loads(label) for label in rows.label]


def devices(lake, version):
    """The devices on which predictions of a version were made."""
    return {str(answer["device"]) for answer in answers(lake, version)}


def test_commands_lose_and_double_nothing_when_the_cluster_fails(
    made, environment, lake, here, server, bucket, tmp_path
):
    def start(name, *words, **more):
        return start_command(name, *words, *here, cwd=tmp_path, **{**environment, **more})

    first, second = (register_devices("devices", pause_s=0.3) for _ in range(2))

    # A worker is killed while both compute.
    scoring = start("score", "--model", first.uri, "--batch_images", "8")
    wait_until(lambda: {"0", "1"} == devices(lake, first))
    assert 2 == made.executors()
    made.kill("worker0")
    assert "40 images scored" in output_of(scoring)
    found = answers(lake, first)
    assert 40 == len(found)
    assert {"0", "1"} == devices(lake, first)
    assert [[str(answer["device"])] for answer in found] == [one["addresses"] for one in found]
    made.start_worker("worker0", ["0"])

    # The driver is killed, and the next run goes on.
    scoring = start("score", "--model", second.uri, "--batch_images", "8")
    wait_until(lambda: len(answers(lake, second)) >= 8)
    scoring.kill()
    scoring.wait(timeout=60)
    before = len(answers(lake, second))
    assert before < 40
    pointer = "models:/devices@champion"
    gone = frame(lake, "images").image_id[0]
    commands = [
        ("score", "--model", second.uri),
        ("promote", "--model", second.uri, "--alias", "champion", "--gate", "off"),
        ("rescore", "--pointers", pointer),
        ("erase", "--image_id", gone),
        ("report",),
    ]
    printed = run_commands(tmp_path, commands, *here, **environment)
    assert f"{40 - before} images scored" in printed
    assert "39 images, 2 versions" in printed
    assert 39 == len(answers(lake, second))

    # Executors leave between two reconciliations, and come again.
    changing = with_defaults(tmp_path / "conf", {**SETTINGS, **COME_AND_GO})
    every = ("--pointers", pointer, "--interval", "1", "--idle", "600")
    watching = start("watch", "--source", f"{bucket}/photos", *every, **changing)
    for number in (1, 2):
        more = {f"photos/more/{number}.jpg": photo((30, 30, 200), number)}
        s3_servers.put(server, bucket.removeprefix("s3://"), **more)
        wait_until(lambda many=39 + number: watching.poll() or len(answers(lake, second)) >= many)
        assert watching.poll() is None, output_of(watching)
        wait_until(lambda: made.executors() == 0)
    watching.send_signal(signal.SIGTERM)
    output_of(watching)


def test_a_network_is_trained_quantized_and_scored(environment, lake, here, tmp_path):
    small = ("--image_size", "32", "--epochs", "1", "--weights", "none", "--name", "trained")
    commands = [
        ("train", "--framework", "keras", *small),
        ("quantize", "--model", "models:/trained/1", "--precision", "float16"),
        ("score", "--model", "models:/trained/2"),
    ]
    printed = run_commands(tmp_path, commands, *here, **environment)
    assert os.environ["AWS_SECRET_ACCESS_KEY"] not in printed
    rows = frame(lake, "predictions")
    rows = rows[rows.model_name == "trained"]
    assert set(rows.image_id) == set(frame(lake, "images").image_id)
    assert {2} == set(rows.model_version)
    assert not rows.error.notna().any()
