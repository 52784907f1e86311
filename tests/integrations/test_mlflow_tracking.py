import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import mlflow
import pytest

from mlproject.errors import UserError
from mlproject.integrations import mlflow_tracking
from tests.conftest import PROJECT


def test_the_default_is_a_database_in_this_folder(tmp_path, monkeypatch):
    before = mlflow.get_tracking_uri()
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    mlflow_tracking.connect()
    assert f"sqlite:///{tmp_path}/mlflow.db" == mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(before)


def test_an_old_mlruns_folder_is_reported_in_one_line_with_exit_code_2(tmp_path):
    (tmp_path / "mlruns" / "0").mkdir(parents=True)
    (tmp_path / "mlruns" / "0" / "meta.yaml").write_text("experiment_id: 0\n")
    environment = {k: v for k, v in os.environ.items() if k != "MLFLOW_TRACKING_URI"}
    done = subprocess.run(
        [sys.executable, "-m", "pipelines.promote", "--model", "models:/photos/1"],
        cwd=tmp_path,
        env={**environment, "PYTHONPATH": f"{PROJECT / 'src'}:{PROJECT}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert 2 == done.returncode
    assert "./mlruns" in done.stderr
    assert 1 == len(done.stderr.splitlines())


@pytest.mark.parametrize("uri", ["file:///somewhere/mlruns", "mlruns"])
def test_a_file_store_is_refused(monkeypatch, uri):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    with pytest.raises(UserError, match="has no model registry"):
        mlflow_tracking.connect()


def test_a_server_that_does_not_respond_is_reported_in_one_line(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    before = mlflow.get_tracking_uri()
    with pytest.raises(UserError, match="does not answer") as raised:
        mlflow_tracking.connect()
    mlflow.set_tracking_uri(before)
    assert "\n" not in str(raised.value)


@pytest.fixture
def registry_forgotten():
    """MLflow keeps a registry for its process."""
    before = mlflow.get_tracking_uri()
    yield
    mlflow.set_registry_uri(None)
    mlflow.set_tracking_uri(before)


def test_a_registry_apart_is_one_file_for_processes_in_every_folder(
    tmp_path, monkeypatch, registry_forgotten
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///runs.db")
    monkeypatch.setenv("MLFLOW_REGISTRY_URI", "sqlite:///models.db")
    mlflow_tracking.connect().create_registered_model("apart")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert f"sqlite:///{tmp_path}/models.db" == os.environ["MLFLOW_REGISTRY_URI"]
    assert ["apart"] == [m.name for m in mlflow_tracking.connect().search_registered_models()]
    assert [] == list(Path().iterdir())


def test_a_registry_that_is_no_longer_named_is_not_used(tmp_path, monkeypatch, registry_forgotten):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/runs.db")
    monkeypatch.setenv("MLFLOW_REGISTRY_URI", f"sqlite:///{tmp_path}/models.db")
    mlflow_tracking.connect()
    monkeypatch.delenv("MLFLOW_REGISTRY_URI")
    assert mlflow_tracking.connect()._registry_uri == f"sqlite:///{tmp_path}/runs.db"


@pytest.mark.parametrize("name", ["MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI"])
@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("file:///somewhere/mlruns", "is a file store"),
        ("http://us:passing-by@127.0.0.1:9", "='http://***@127.0.0.1:9' does not answer"),
        ("http://us:passing/by@127.0.0.1:9", "has characters that end it"),
        ("nosuch://us:passing-by@127.0.0.1:9", "='nosuch://***@127.0.0.1:9' does not answer"),
        (
            "postgresql+psycopg2://us:passing-by@127.0.0.1:9/db",
            "='postgresql+psycopg2://***@127.0.0.1:9/db' does not answer ((psycopg2.",
        ),
        ("sqlite:////proc/no/mlflow.db", "='sqlite:////proc/no/mlflow.db' does not answer"),
    ],
)
def test_a_store_that_cannot_be_used_is_named_in_one_line_without_its_password(
    store, monkeypatch, registry_forgotten, name, uri, expected
):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv(name, uri)
    with pytest.raises(UserError) as raised:
        mlflow_tracking.connect()
    message = str(raised.value)
    assert name in message
    assert expected in message
    assert "passing" not in message
    assert 1 == len(message.splitlines())


def test_parameters_and_tags_contain_no_secret(store):
    uri = "https://us:passing-by@host/mlflow"
    with mlflow_tracking.run("watch", {"webhook": uri}) as run:
        mlflow_tracking.connect().set_tag(run.info.run_id, "why", f"{uri} is away")
    found = mlflow.get_run(run.info.run_id).data
    assert "https://***@host/mlflow" == found.params["webhook"]
    assert "https://***@host/mlflow is away" == found.tags["why"]


def test_the_run_of_a_command_has_its_name_parameters_and_status(store):
    with mlflow_tracking.run("score", {"lake": "lake", "wave_images": 0}) as run:
        pass
    ended = mlflow.get_run(run.info.run_id)
    assert ("score", "FINISHED") == (ended.info.run_name, ended.info.status)
    assert {"lake": "lake", "wave_images": "0"} == ended.data.params


def test_a_run_that_mlflow_run_started_is_continued(store, monkeypatch):
    client = mlflow.MlflowClient()
    experiment = mlflow.get_experiment_by_name("tests").experiment_id
    begun = client.create_run(experiment, run_name="a name of my own")
    client.log_param(begun.info.run_id, "lake", "as mlflow run wrote it")
    monkeypatch.setenv("MLFLOW_RUN_ID", begun.info.run_id)
    with mlflow_tracking.run("score", {"lake": "lake", "model": "m"}) as run:
        pass
    assert begun.info.run_id == run.info.run_id
    assert "a name of my own" == mlflow.get_run(run.info.run_id).info.run_name
    params = mlflow.get_run(run.info.run_id).data.params
    assert {"lake": "as mlflow run wrote it", "model": "m"} == params


def test_several_processes_set_the_same_new_tag_at_once(store):
    client = mlflow_tracking.connect()
    client.create_registered_model("tagged")
    client.create_model_version("tagged", "file:///nowhere")
    run = client.create_run("0").info.run_id
    barrier = threading.Barrier(4)

    def set_both(key):
        barrier.wait()
        client.set_model_version_tag("tagged", "1", key, "value")
        client.set_tag(run, key, "value")

    with ThreadPoolExecutor(4) as threads:
        for number in range(20):
            keys = [f"key{number}"] * 4
            list(threads.map(set_both, keys))
    expected = {f"key{number}": "value" for number in range(20)}
    assert expected == client.get_model_version("tagged", "1").tags
    assert expected.items() <= client.get_run(run).data.tags.items()


def test_several_processes_create_the_store_at_once(tmp_path):
    program = "from mlproject.integrations import mlflow_tracking as t; t.connect()"
    environment = {k: v for k, v in os.environ.items() if k != "MLFLOW_TRACKING_URI"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", program],
            cwd=tmp_path,
            env={**environment, "PYTHONPATH": str(PROJECT / "src")},
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    for process in processes:
        _, errors = process.communicate()
        assert 0 == process.returncode, errors
