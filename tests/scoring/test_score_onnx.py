"""Versions with the engine onnxruntime in Spark's workers, and where there is no framework."""

import json
import os
import resource
import subprocess
import sys

import mlflow
import pandas as pd
import pytest

import mlproject
from mlproject.ingestion import new_images, source_listing
from mlproject.integrations import framework_process
from mlproject.scoring import scorer, workers
from mlproject.versions import registry
from tests.conftest import PROJECT, photos
from tests.support import fresh_processes
from tests.support.lakes import frame
from tests.support.worker_threads import session_threads

pytestmark = [pytest.mark.spark, pytest.mark.slow]

FRAMEWORKS = {"tensorflow", "keras", "torch", "torchvision"}


def save_weights(path: str) -> None:
    """Random weights; called in the process of torch."""
    import torch
    import torchvision

    torch.manual_seed(0)
    torch.save(torchvision.models.mobilenet_v2(num_classes=1000).state_dict(), path)


@pytest.fixture(scope="module")
def version(store, tmp_path_factory):
    path = str(tmp_path_factory.mktemp("weights") / "random.pt")
    with framework_process.process("torch") as call:
        call(save_weights, path)
    made = mlproject.register("torch", weights=path, lake=str(store / "lake"))
    assert ("onnxruntime", "") == (made.engine, made.engine_reason)
    return made.version


@pytest.fixture
def filled(spark, lake, tmp_path) -> str:
    folder = photos(tmp_path / "source", 70)
    new_images.ingest_pending(spark, lake, source_listing.listing(str(folder)))
    return lake


def test_workers_import_no_framework_and_need_little_memory(spark, filled, version):
    assert 70 == scorer.score_pending(spark, filled, version).images

    def look(batches):
        loaded = sorted({name.partition(".")[0] for name in sys.modules})
        peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        for _ in batches:
            yield pd.DataFrame({"modules": [json.dumps(loaded)], "peak_mb": [peak_mb]})

    with workers.environment_of(spark, version):
        found = spark.range(2, numPartitions=2).mapInPandas(look, "modules string, peak_mb double")
    for row in found.collect():
        assert not FRAMEWORKS & set(json.loads(row.modules))
    # The processes that have scored are among them. With torch it was 1,075 MB, with TensorFlow
    # 1,310, for the network alone.
    assert any("onnxruntime" in json.loads(row.modules) for row in found.collect())
    assert [(1, 1)] == session_threads(spark, version)
    assert all(row.peak_mb < 700 for row in found.collect()), found.collect()


def test_a_session_computes_with_as_many_threads_as_its_task_has_cores(filled, version, tmp_path):
    code = """
import sys
import mlflow
from mlproject.integrations import spark_session
from mlproject.scoring import scorer
from mlproject.versions import registry
from tests.support.worker_threads import session_threads
lake, uri = sys.argv[1:]
version = registry.resolve(mlflow.MlflowClient(), uri)
with spark_session.session() as spark:
    print(scorer.score_pending(spark, lake, version).images, session_threads(spark, version))
"""
    settings = {"SPARK_MASTER": "local[2]"}
    settings["PYSPARK_SUBMIT_ARGS"] = "--conf spark.task.cpus=2 pyspark-shell"
    done = fresh_processes.run(code, tmp_path, filled, version.uri, **settings)
    assert "70 [(2, 2)]\n" == done.stdout, done.stderr[-3000:]


@pytest.fixture(scope="module")
def scoring_python(tmp_path_factory):
    """The Python of an environment with the packages of requirements-scoring.txt alone."""
    folder = tmp_path_factory.mktemp("scoring") / "venv"
    python = folder / "bin" / "python"
    packages = str(PROJECT / "requirements-scoring.txt")
    making = ("uv", "venv", "--python", sys.executable, str(folder))
    subprocess.run(making, check=True, capture_output=True, timeout=600)
    install = ("uv", "pip", "install", "--python", str(python), "-r", packages)
    # From the cache, where `make setup` has put them: else pyspark is built once more.
    cached = subprocess.run([*install, "--offline"], check=False, capture_output=True, timeout=600)
    if cached.returncode:
        subprocess.run(install, check=True, capture_output=True, timeout=600)
    installed = {path.name for path in folder.glob("lib/python*/site-packages/*")}
    assert not FRAMEWORKS & installed
    return python


@pytest.fixture
def output_of(scoring_python, filled, tmp_path):
    """Runs a command on the lake in that environment; gives back its stdout."""

    def run(name, *words):
        environment = {"PATH": f"{scoring_python.parent}{os.pathsep}{os.environ['PATH']}"}
        done = subprocess.run(
            [str(scoring_python), "-m", f"pipelines.{name}", *words, "--lake", filled],
            env={**os.environ, **environment},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
        )
        assert 0 == done.returncode, done.stdout + done.stderr
        return done.stdout

    return run


def test_scoring_needs_no_more_than_requirements_scoring(filled, version, output_of):
    output_of("score", "--model", version.uri)
    rows = frame(filled, "predictions")
    assert (70, 70) == (len(rows), rows["error"].isna().sum())


@pytest.mark.thorough
def test_planning_rolling_out_and_replaying_need_no_more_either(filled, version, output_of):
    registry.move(mlflow.MlflowClient(), version, alias="champion")
    pointers = ("--pointers", f"models:/{version.name}@champion")
    [planned] = json.loads(output_of("plan", *pointers, "--json"))
    assert ("score", 70) == (planned["action"], planned["version"]["missing"])
    output_of("rescore", *pointers)
    [served] = json.loads(output_of("plan", *pointers, "--json"))
    assert ("nothing", version.uri, 0) == (
        served["action"],
        served["readers"]["uri"],
        served["readers"]["missing"],
    )
    image = frame(filled, "images").path[0]
    replayed = json.loads(output_of("replay", "--model", version.uri, "--image", image, "--json"))
    assert (True, "") == (replayed["same"], replayed["now"]["error"] or "")
