"""Commands as processes on a standalone cluster of two workers with a made-up GPU each."""

import json
import signal

import pytest

from tests.conftest import output_of, photos, start_command
from tests.support.lakes import frame
from tests.support.spark_clusters import cluster, with_defaults
from tests.support.versions import register_devices
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.spark, pytest.mark.slow]

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
def made(tmp_path_factory):
    with cluster(tmp_path_factory.mktemp("cluster"), [["0"], ["1"]], cores=1) as running:
        yield running


@pytest.fixture
def environment(made, tmp_path):
    return {"SPARK_MASTER": made.url, **with_defaults(tmp_path / "conf", SETTINGS)}


def answers(folder, version):
    """The labels of a version's predictions, decoded; each image has one, without an error."""
    rows = frame(str(folder / "lake"), "predictions")
    rows = rows[rows.model_id == version.model_id]
    assert not rows.image_id.duplicated().any()
    assert not rows.error.notna().any()
    return [json.loads(label) for label in rows.label]


def devices(folder, version):
    """The devices on which predictions of a version were made."""
    if not (folder / "lake" / "predictions" / "_delta_log").is_dir():
        return set()
    return {str(answer["device"]) for answer in answers(folder, version)}


def wait_for(folder, version, images):
    """Until so many predictions of a version are committed."""
    log = folder / "lake" / "predictions" / "_delta_log"
    wait_until(lambda: log.is_dir() and len(answers(folder, version)) >= images)


def test_commands_on_a_cluster_lose_and_double_nothing_when_it_fails(
    made, environment, store, tmp_path
):
    def start(name, *words, **more):
        return start_command(name, *words, cwd=tmp_path, **environment, **more)

    photos(tmp_path / "source", 40)
    assert "Ingested 40 of 40" in output_of(start("ingest", "--source", "source", "--settle", "0"))
    first, second = (register_devices("devices", pause_s=0.3) for _ in range(2))

    # A worker is killed while both compute.
    scoring = start("score", "--model", first.uri, "--batch_images", "8")
    wait_until(lambda: {"0", "1"} == devices(tmp_path, first))
    assert 2 == made.executors()
    made.kill("worker0")
    assert "40 images scored" in output_of(scoring)
    found = answers(tmp_path, first)
    assert 40 == len(found)
    assert {"0", "1"} == devices(tmp_path, first)
    assert [[str(answer["device"])] for answer in found] == [one["addresses"] for one in found]
    made.start_worker("worker0", ["0"])

    # The driver is killed, and the next run goes on.
    scoring = start("score", "--model", second.uri, "--batch_images", "8")
    wait_for(tmp_path, second, 8)
    scoring.kill()
    scoring.wait(timeout=60)
    before = len(answers(tmp_path, second))
    assert before < 40
    rest = output_of(start("score", "--model", second.uri))
    assert f"{40 - before} images scored" in rest
    assert 40 == len(answers(tmp_path, second))

    output_of(start("promote", "--model", second.uri, "--alias", "champion", "--gate", "off"))
    output_of(start("rescore", "--pointers", "models:/devices@champion"))
    gone = frame(str(tmp_path / "lake"), "images").image_id[0]
    output_of(start("erase", "--image_id", gone))
    assert 39 == len(answers(tmp_path, second))
    assert "39 images, 2 versions" in output_of(start("report"))

    # Executors leave between two reconciliations, and come again.
    environment |= with_defaults(tmp_path / "come and go", {**SETTINGS, **COME_AND_GO})
    watching = start("watch", "--source", "source", "--interval", "1", "--idle", "600")
    for number in (1, 2):
        photos(tmp_path / "source", 1, "blue", seed=number)
        wait_for(tmp_path, second, 39 + number)
        wait_until(lambda: made.executors() == 0)
    watching.send_signal(signal.SIGTERM)
    output_of(watching)
