import os
import signal
import subprocess
import sys
import time

import mlflow
import pytest

from mlproject.errors import MachineError, MlprojectError, UserError
from mlproject.integrations import framework_process
from mlproject.weights import weights_files

IMPORTED = "{name for name in ('tensorflow', 'torch') if name in __import__('sys').modules}"

PARENT = """
import os, time
from mlproject.integrations import framework_process
if __name__ == "__main__":
    with framework_process.process("torch") as call:
        print(call(os.getpid), flush=True)
        time.sleep(600)
"""


ODD = """
class Odd(Exception):
    def __init__(self, one, two):
        super().__init__("of an odd kind")
raise Odd(1, 2)
"""


@pytest.fixture(scope="module")
def progress():
    return []


@pytest.fixture(scope="module")
def in_torch(progress):
    with framework_process.process("torch", lambda *at: progress.append(at)) as call:
        yield call


def test_two_frameworks_run_side_by_side_and_this_process_imports_neither(in_torch):
    before = eval(IMPORTED)  # noqa: S307 - our own words
    with framework_process.process("keras") as in_keras:
        assert {"tensorflow"} == in_keras(eval, IMPORTED)
        assert {"torch"} == in_torch(eval, IMPORTED)
        pids = {in_keras(os.getpid), in_keras(os.getpid), in_torch(os.getpid), os.getpid()}
    assert 3 == len(pids)
    assert before == eval(IMPORTED)  # noqa: S307


def test_an_error_in_a_call_is_raised_here_and_the_process_continues(in_torch, tmp_path):
    with pytest.raises(UserError, match=r"no weights file 'nowhere\.pth'"):
        in_torch(weights_files.canonical, "torch", "nowhere.pth", tmp_path)
    with pytest.raises(RuntimeError, match="of an odd kind"):  # it can be pickled, not unpickled
        in_torch(exec, ODD)
    assert 7 == in_torch(int, "7")


def test_progress_in_the_process_is_reported_here(in_torch, progress):
    in_torch(framework_process.report_progress, 3, 10)
    assert [(3, 10)] == progress


@pytest.mark.parametrize(
    ("number", "error", "reason"),
    [
        (signal.SIGKILL, MachineError, r"exit code -9; too little memory, perhaps: use smaller"),
        (signal.SIGSEGV, MlprojectError, r"exit code -11\)$"),
    ],
)
def test_a_process_that_dies_is_reported_in_one_line(number, error, reason):
    with framework_process.process("torch") as call:
        pid = call(os.getpid)
        with pytest.raises(
            MlprojectError, match=f"process that runs torch ended.*{reason}"
        ) as died:
            call(os.kill, pid, number)
    assert error is died.type
    assert "\n" not in str(died.value)


def test_the_active_run_is_active_in_the_process_too(store):
    with mlflow.start_run() as run, framework_process.process("torch") as call:
        call(mlflow.log_metric, "progress", 1.0)
        mlflow.log_metric("here", 2.0)
    assert {"progress": 1.0, "here": 2.0} == mlflow.get_run(run.info.run_id).data.metrics


@pytest.mark.skipif(sys.platform != "linux", reason="looks for the process in /proc")
def test_the_process_ends_when_its_parent_is_killed(tmp_path):
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    parent = subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True)
    pid = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 30
    while os.path.exists(f"/proc/{pid}") and time.monotonic() < deadline:  # noqa: PTH110
        time.sleep(0.2)
    assert not os.path.exists(f"/proc/{pid}")  # noqa: PTH110


def test_a_stop_in_the_block_ends_the_process_at_once():
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt), framework_process.process("torch") as call:
        call(os.getpid)
        signal.setitimer(signal.ITIMER_REAL, 0.5)
        before = signal.signal(signal.SIGALRM, signal.default_int_handler)
        try:
            call(time.sleep, 600)
        finally:
            signal.signal(signal.SIGALRM, before)
    assert time.monotonic() - began < 300
