"""The health of a watch: judged from its status, and asked for by a process beside it."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace

import pytest

import mlproject
from mlproject.service import health
from mlproject.service.health import Reconciled, WatchStatus, read_status, write_status
from mlproject.service.processes import Process, has_ended, this_process
from mlproject.service.retries import Troubles
from mlproject.service.state import StatusReport, WatchState
from tests.support.commands import run_command

DONE = Reconciled(3, 0, "2026-01-31T12:00:00+00:00", 2, 1, 7.0, 40)
OTHER = Process("other", "another machine", 77)
STATUS = WatchStatus(OTHER, "/lake", "2026-01-31T11:00:00+00:00", "waiting", 100, 60, DONE, {}, {})


@pytest.mark.parametrize(
    ("status", "now_s", "ended", "alive", "ready", "reason"),
    [
        (STATUS, 159, False, True, True, ""),
        (STATUS, 161, False, False, False, "hangs"),
        (replace(STATUS, phase="reconciling", patience_s=900), 999, False, True, True, ""),
        (STATUS, 101, True, False, False, "has ended"),
        (STATUS, 99, False, False, False, "has ended"),  # the machine has started again since
        (
            replace(STATUS, reconciled=replace(DONE, failures=2)),
            101,
            False,
            True,
            False,
            "the last 2 reconciliations failed (last success: 2026",
        ),
        (
            replace(STATUS, reconciled=replace(DONE, succeeded_at="")),
            101,
            False,
            True,
            False,
            "no reconciliation has ended",
        ),
    ],
)
def test_a_watch_is_alive_while_it_makes_progress_and_ready_once_it_has_succeeded(
    status, now_s, ended, alive, ready, reason
):
    found = health.judged(status, now_s, ended=ended)
    assert (alive, ready) == (found.alive, found.ready)
    assert reason in found.reason
    assert bool(reason) == bool(found.reason)


def test_a_status_is_read_as_it_was_written_and_half_of_one_is_none(tmp_path):
    file = tmp_path / "status.json"
    assert read_status(file) is None
    write_status(file, STATUS)
    assert STATUS == read_status(file)
    for content in (file.read_text()[:-9], "{}", "[]", "null"):
        file.write_text(content)
        assert read_status(file) is None, content


def test_each_lake_has_a_file_however_it_is_written(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    files = [health.status_file(lake) for lake in ("lake", str(tmp_path / "lake"), "./lake/")]
    assert 1 == len({*files})
    assert tmp_path in files[0].parents
    assert health.status_file("s3://b/lake") == health.status_file("s3a://b/lake/") != files[0]
    assert tmp_path / "mine.json" == health.status_file("lake", "mine.json")


def test_a_process_has_ended_only_where_that_can_be_seen():
    own = this_process()
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    other = replace(own, pid=child.pid)
    assert not has_ended(other)
    child.communicate(b"\n")
    assert has_ended(other)
    assert has_ended(own)  # an earlier one with our number, as in a container that starts again
    assert not has_ended(replace(other, space="another machine"))


class Reporting:
    """A watch's report, as far as it is written."""

    def __init__(self, file, lake="/lake"):
        self.state, self.faults = WatchState(), []
        troubles = Troubles(self.faults.append, self.faults.append)
        self.report = StatusReport(file, lake, self.state, troubles, task_timeout=600)


def test_patience_is_long_in_a_reconciliation_and_short_between_two(tmp_path):
    watch = Reporting(tmp_path / "status.json")
    for phase, patience in (("starting", 900), ("reconciling", 900), ("waiting", 60)):
        watch.report.enter(phase)
        found = read_status(watch.report.file)
        assert (phase, patience) == (found.phase, found.patience_s)
    assert not watch.report.is_late()
    watch.report.progress_s -= 61
    assert watch.report.is_late()
    watch.report.progress()
    assert not watch.report.is_late()


def test_a_second_watch_leaves_the_file_to_the_first_until_that_ends(tmp_path):
    file = tmp_path / "status.json"
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    first = replace(this_process(), pid=child.pid)
    write_status(file, replace(STATUS, process=first, progress_s=time.monotonic()))
    watch = Reporting(file)
    watch.report.enter("waiting")
    watch.report.enter("reconciling")
    assert first == read_status(file).process
    assert [f"{file}: another watch (process {child.pid}) writes its status there. "] == [
        fault.split("Name another")[0] for fault in watch.faults
    ]
    child.communicate(b"\n")
    watch.report.enter("waiting")
    assert this_process() == read_status(file).process


def test_a_status_that_cannot_be_written_stops_nothing(tmp_path):
    (tmp_path / "file").write_text("")
    Reporting(tmp_path / "file" / "status.json").report.enter("waiting")


def test_systemd_is_told_of_progress_and_of_the_stop(tmp_path, monkeypatch):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        watch, got = Reporting(tmp_path / "status.json"), []
        for phase in ("starting", "waiting", "stopped"):
            watch.report.enter(phase)
            got.append(systemd.recv(1000).decode().splitlines())
    assert ["WATCHDOG=1", "STATUS=starting, backlog 0 images"] == got[0]
    assert "READY=1" in got[1]
    assert "STOPPING=1" in got[2]
    assert not (tmp_path / "status.json").exists()


def test_the_command_prints_json_and_its_exit_code_is_what_was_asked(tmp_path):
    file, words = tmp_path / "status.json", ("--status", tmp_path / "status.json")
    found = run_command("health", *words, code=1)
    assert {"alive": False, "ready": False} == {
        key: value for key, value in json.loads(found.stdout).items() if key != "reason"
    }
    assert 1 == len(found.stderr.splitlines())
    status = replace(STATUS, progress_s=time.monotonic())
    write_status(file, status)
    facts = json.loads(run_command("health", *words).stdout)
    assert {"alive": True, "ready": True, "lag_s": 7.0, "backlog": 40}.items() <= facts.items()
    assert facts["last_reconciliation_age_s"] > 0
    write_status(file, replace(status, reconciled=replace(DONE, failures=1)))
    run_command("health", *words, "--probe", "alive")
    run_command("health", *words, "--probe", "ready", code=1)


PROBE = """
import contextlib, sys
from mlproject import cli
with contextlib.suppress(SystemExit):
    cli.main(["health", "--lake", sys.argv[1]])
print(*sorted({"mlflow", "pyspark", "deltalake", "pandas"} & set(sys.modules)))
"""


def test_a_probe_imports_little(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", PROBE, str(tmp_path / "lake")],
        env={**os.environ, "XDG_CACHE_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "" == done.stdout.splitlines()[-1]
    assert "no watch of this lake runs here" in done.stderr


def test_the_function_gives_what_the_command_prints(tmp_path):
    write_status(tmp_path / "one.json", replace(STATUS, progress_s=time.monotonic()))
    found = mlproject.health(status=str(tmp_path / "one.json"))
    assert (True, True, DONE) == (found.alive, found.ready, found.status.reconciled)


def test_a_stopped_process_is_seen_to_hang(tmp_path):
    """As one does that is out of CPU, or waits in the kernel."""
    code = (
        "import sys, time\nfrom pathlib import Path\n"
        "from mlproject.service import state\nfrom mlproject.service.retries import Troubles\n"
        "state.WAITING_S, state.WRITE_S = 2, 0\n"
        "watch = state.StatusReport(Path(sys.argv[1]), '/lake', state.WatchState(), "
        "Troubles(print, print), task_timeout=1)\n"
        "watch.enter('waiting')\nprint('up', flush=True)\n"
        "while True:\n  watch.progress()\n  time.sleep(0.1)\n"
    )
    file = tmp_path / "status.json"
    child = subprocess.Popen([sys.executable, "-c", code, str(file)], stdout=subprocess.PIPE)
    try:
        assert child.stdout.readline()
        time.sleep(3)
        assert mlproject.health(status=str(file)).alive
        child.send_signal(signal.SIGSTOP)
        time.sleep(3)
        assert "hangs" in mlproject.health(status=str(file)).reason
        child.send_signal(signal.SIGCONT)
        time.sleep(1)
        assert mlproject.health(status=str(file)).alive
    finally:
        child.kill()
        child.wait()
