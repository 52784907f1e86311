import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

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
