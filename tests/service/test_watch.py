"""The command `watch` as a process, beside a real MLflow server that comes and goes."""

import contextlib
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import mlflow
import pytest

from mlproject.rollout import ledger
from mlproject.versions import registry
from tests.conftest import PROJECT, photo, photos, start_command
from tests.support import mlflow_servers
from tests.support.commands import run_command
from tests.support.rollouts import require_sound
from tests.support.versions import register_colours
from tests.support.watches import Watch, wait
from tests.support.webhook_events import EVENT, SECRET, Listener, signed

pytestmark = [pytest.mark.spark, pytest.mark.slow]

POINTER = "models:/photos@champion"


@pytest.fixture
def port():
    return mlflow_servers.free_port()


@pytest.fixture
def server(tmp_path, port, monkeypatch):
    """A server whose moves of aliases trigger us, and its process in a list of one."""
    with mlflow_servers.starting(tmp_path, port=port, **mlflow_servers.OPEN) as started:
        client = mlflow_servers.client(*started)
        before = mlflow.get_tracking_uri()
        monkeypatch.setenv("MLFLOW_TRACKING_URI", started[1])
        monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "watched")
        monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", "")  # MLflow sets it below
        monkeypatch.delenv("MLFLOW_EXPERIMENT_ID")
        mlflow.set_tracking_uri(started[1])
        mlflow.set_experiment("watched")
        yield client, started[0]
        mlflow.set_tracking_uri(before)


def serving(lake):
    now = ledger.read(lake).serving(POINTER)
    return now and now.version.version


def test_a_webhook_triggers_a_roll_out_and_the_watch_outlives_its_server(server, port, tmp_path):
    client, process = server
    versions = [register_colours("photos", reverse=reverse) for reverse in (False, True)]
    registry.move(client, versions[0], alias="champion")
    photos(tmp_path / "photos", 5, "red")
    lake, port_of_watch = str(tmp_path / "lake"), mlflow_servers.free_port()
    words = (
        *("--pointers", f"{POINTER},models:/nobody@champion", "--lake", lake),
        *("--source", str(tmp_path / "photos"), "--interval", "300", "--idle", "1"),
        *(
            "--webhook",
            f"http://127.0.0.1:{port_of_watch}/mlflow",
            "--listen",
            f"127.0.0.1:{port_of_watch}",
        ),
    )
    begun = start_command("watch", *words, cwd=tmp_path, MLPROJECT_WEBHOOK_SECRET=SECRET)
    with Watch(begun) as watch:
        watch.until("health:")
        assert 1 == serving(lake)
        assert any("There is no model 'nobody'" in line for line in watch.lines)
        wait(lambda: not watch.javas(), watch.output)

        registry.move(client, versions[1], alias="champion")  # by REST, as anybody moves it
        wait(lambda: serving(lake) == 2, watch.output)

        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        listener = Listener(port_of_watch)
        assert 204 == listener.post(signed())
        watch.until("This reconciliation:")
        (tmp_path / "photos" / "late.jpg").write_bytes(photo((9, 200, 9), 3))
        with mlflow_servers.starting(tmp_path, port=port, **mlflow_servers.OPEN) as again:
            mlflow_servers.client(*again)
            assert [401, 204] == [listener.post({}), listener.post(signed(), EVENT)]
            watch.until("works again")
            wait(
                lambda: ledger.read(lake).serving(POINTER).covered.images == 6,
                watch.output,
            )
            watch.stop()
            experiment = client.get_experiment_by_name("watched").experiment_id
            runs = client.search_runs([experiment], "tags.`mlproject.verb` = 'watch'")
            assert ["KILLED"] == [run.info.status for run in runs]
            metrics = runs[0].data.metrics
            assert {"reconciliations", "lag_s", "backlog", "last_reconciliation"} <= set(metrics)


@pytest.mark.thorough
def test_a_full_disk_a_dead_jvm_and_a_stop_of_all_processes_are_reported_and_lose_nothing(
    server, tmp_path
):
    client, _ = server
    versions = [register_colours("photos", reverse=reverse) for reverse in (False, True)]
    registry.move(client, versions[0], alias="champion")
    photos(tmp_path / "photos", 5, "red")
    lake = str(tmp_path / "lake")
    words = (
        *("--pointers", POINTER, "--lake", lake, "--source", str(tmp_path / "photos")),
        *("--interval", "1", "--idle", "3600"),
    )
    with Watch(start_command("watch", *words, cwd=tmp_path)) as watch:
        wait(lambda: serving(lake) == 1, watch.output)

        def room(processes, size):  # a file that may not grow is all that a writer of files sees
            for process in processes:
                with contextlib.suppress(ProcessLookupError):  # a worker that has ended
                    limits = (size, resource.RLIM_INFINITY)
                    resource.prlimit(process, resource.RLIMIT_FSIZE, limits)

        room(watch.sparks(), 1)  # tasks, which write the predictions
        registry.move(client, versions[1], alias="champion")
        watch.until("File too large")
        assert (1, "scoring") == (serving(lake), ledger.read(lake).entries[-1].state), (
            watch.output()
        )
        room([watch.process.pid], 1)  # deltalake, which writes the ledger
        room(watch.sparks(), resource.RLIM_INFINITY)
        watch.until("File too large", count=2)
        assert 1 == serving(lake)
        room([watch.process.pid], resource.RLIM_INFINITY)
        wait(lambda: serving(lake) == 2, watch.output)

        [java] = watch.javas()  # it has died for want of memory
        os.kill(java, signal.SIGKILL)
        photos(tmp_path / "photos", 1, "green")
        wait(lambda: ledger.read(lake).serving(POINTER).covered.images == 6, watch.output)
        require_sound(lake)

        registry.move(client, register_colours("photos"), alias="champion")
        wait(lambda: ledger.read(lake).entries[-1].state == "scoring", watch.output)
        os.killpg(watch.process.pid, signal.SIGTERM)  # Spark too, as systemd does
        assert 0 == watch.process.wait(60), watch.output()
        watch.until("Stopped after ")
    assert not any("Traceback" in line for line in watch.lines), watch.output()
    require_sound(lake)
    runs = mlflow.search_runs(experiment_names=["watched"], output_format="list")
    (own,) = (run for run in runs if run.info.run_name == "watch")
    assert "KILLED" == own.info.status


def test_under_mlflow_run_too_the_run_of_a_stopped_watch_is_marked_killed(store, tmp_path):
    words = ("-P", f"lake={tmp_path}/lake", "-P", "interval=1")
    kept = {key: word for key, word in os.environ.items() if key != "MLFLOW_EXPERIMENT_ID"}
    begun = subprocess.Popen(
        ["mlflow", "run", str(PROJECT), "-e", "watch", "--env-manager", "local", *words],
        env={**kept, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    with Watch(begun) as watch:
        watch.until("There is no table")
        subprocess.run(["pkill", "-g", str(begun.pid), "-f", "pipelines.watch"], check=True)
        assert 0 == begun.wait(60), watch.output()
    runs = mlflow.search_runs(experiment_names=["tests"], output_format="list")
    (own,) = (run for run in runs if "mlflow.parentRunId" in run.data.tags)
    assert ("watch", "KILLED") == (own.info.run_name, own.info.status)
    assert {"interval", "lake"} <= set(own.data.params)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--interval", "0"), "interval=0.0 is below"),
        (("--webhook", "https://here/mlflow", "--listen", "here"), "is not HOST:PORT"),
        (("--webhook", "https://here/mlflow"), "MLPROJECT_WEBHOOK_SECRET is not set"),
    ],
)
def test_a_watch_that_cannot_begin_is_an_error_in_one_line(
    store, tmp_path, monkeypatch, arguments, message
):
    monkeypatch.delenv("MLPROJECT_WEBHOOK_SECRET", raising=False)
    words = ["--lake", str(Path(tmp_path) / "lake"), *arguments]
    result = run_command("watch", *words, code=2)
    assert message in result.stderr
    assert 1 == len(result.stderr.splitlines())
