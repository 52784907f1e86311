import os
import signal
import subprocess
import sys
import time

import mlflow
import pytest

from mlproject import frameworks, weights
from mlproject.errors import MlprojectError, UserError

IMPORTED = "{name for name in ('tensorflow', 'torch') if name in __import__('sys').modules}"

PARENT = """
import os, time
from mlproject import frameworks
if __name__ == "__main__":
    with frameworks.process("torch") as call:
        print(call(os.getpid), flush=True)
        time.sleep(600)
"""


def test_two_frameworks_run_side_by_side_and_this_process_imports_neither():
    before = eval(IMPORTED)  # noqa: S307 - our own words
    with frameworks.process("keras") as in_keras, frameworks.process("torch") as in_torch:
        assert {"tensorflow"} == in_keras(eval, IMPORTED)
        assert {"torch"} == in_torch(eval, IMPORTED)
        pids = {in_keras(os.getpid), in_keras(os.getpid), in_torch(os.getpid), os.getpid()}
    assert 3 == len(pids)
    assert before == eval(IMPORTED)  # noqa: S307


def test_what_a_call_raises_is_raised_here_and_the_process_goes_on(tmp_path):
    with frameworks.process("torch") as call:
        with pytest.raises(UserError, match=r"no weights file 'nowhere\.pth'"):
            call(weights.canonical, "torch", "nowhere.pth", tmp_path)
        assert 7 == call(int, "7")


def test_a_process_that_dies_is_told_in_one_line():
    with frameworks.process("torch") as call:
        pid = call(os.getpid)
        with pytest.raises(MlprojectError, match="process that runs torch ended") as raised:
            call(os.kill, pid, signal.SIGKILL)
    assert "\n" not in str(raised.value)


def test_the_active_run_is_active_in_the_process_too(store):
    with mlflow.start_run() as run, frameworks.process("torch") as call:
        call(mlflow.log_metric, "told", 1.0)
        mlflow.log_metric("here", 2.0)
    assert {"told": 1.0, "here": 2.0} == mlflow.get_run(run.info.run_id).data.metrics


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
