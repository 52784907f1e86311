"""What commands share: progress and error messages."""

import contextlib
import errno
import json
import os
import pty
import signal
import subprocess
import sys

import pytest
from mlflow.exceptions import MlflowException
from py4j.protocol import Py4JError, Py4JJavaError, Py4JNetworkError

from mlproject.commands.console import (
    exit_codes,
    print_engine,
    print_json,
    print_table,
    stdout_to_stderr,
    stopped_by_signals,
)
from mlproject.errors import MachineError, RefusedError, UserError
from mlproject.integrations.outages import error_message

AGAIN = ". What was committed stays. Fix this, then run the command again"

TELL = """
from mlproject.commands.console import progress
with progress("score") as [on_progress]:
    on_progress(3, 10)
    on_progress(10, 10)
print("after")
"""


def test_progress_is_plain_lines_without_a_terminal():
    done = subprocess.run([sys.executable, "-c", TELL], capture_output=True, text=True, check=True)
    assert ["score: 3 of 10", "score: 10 of 10", "after"] == done.stdout.splitlines()
    assert "" == done.stderr


def test_progress_is_a_bar_in_a_terminal_and_nothing_is_left_of_it():
    theirs, ours = pty.openpty()
    command, seen = [sys.executable, "-c", TELL], b""
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=ours, text=True) as started:
        os.close(ours)
        with contextlib.suppress(OSError):  # all was read; one read gives 4 kB at most
            while chunk := os.read(theirs, 4096):
                seen += chunk
        output, _ = started.communicate()
    os.close(theirs)
    assert (0, ["after"]) == (started.returncode, output.splitlines())
    assert b"10/10" in seen
    assert b"\x1b[2K" in seen  # the line is erased at the end


BUG = """
import warnings
from mlproject import cli
from mlproject.commands import report
def run(**options):
    print("a run at http://us:passing-by@host/#/runs")
    warnings.warn("http://us:passing-by@host is slow")
    raise RuntimeError("no http://us:passing-by@host") from ValueError("passing by & by")
report.run = run
cli.main(["report"])
"""


def test_nothing_that_is_printed_contains_a_secret_even_the_traceback_of_a_bug():
    done = subprocess.run(
        [sys.executable, "-c", BUG],
        env={**os.environ, "MLFLOW_TRACKING_PASSWORD": "passing by & by"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert 1 == done.returncode
    assert "a run at http://***@host/#/runs\n" == done.stdout
    assert "UserWarning: http://***@host is slow" in done.stderr
    assert "ValueError: ***" in done.stderr
    assert "RuntimeError: no http://***@host" == done.stderr.splitlines()[-1]
    assert "passing by & by" not in done.stderr


def test_a_secret_in_a_cell_that_is_folded_is_masked(capsys):
    print_table(("why",), [("x" * 95 + " http://us:passing-by@host",)])
    assert "***@host" in capsys.readouterr().out.replace("\n", "")


class DeadJvmError(Py4JJavaError):
    """An error of Java whose words are asked for when Java has gone."""

    def __init__(self):
        pass

    def __str__(self):
        raise ConnectionRefusedError


@pytest.mark.parametrize(
    "error",
    [
        DeadJvmError(),
        ConnectionRefusedError(111, "Connection refused"),
        Py4JNetworkError("Answer from Java side is empty"),
        Py4JError("An error occurred while calling o226.unpersist"),
    ],
)
def test_the_end_of_sparks_jvm_is_reported_as_such(error):
    assert error_message(error).startswith("its JVM ended")


@pytest.mark.parametrize(
    "words", ["no such method\nTrace:\nat java", "X does not exist in the JVM"]
)
def test_another_error_of_py4j_is_reported_with_its_message(words):
    assert words.splitlines()[0] == error_message(Py4JError(words))


AWAY = "AWS Error NETWORK_CONNECTION during HeadObject operation"


class NotFoundError(MlflowException):
    """An error of MLflow's kind."""


@pytest.mark.parametrize(
    ("error", "code", "lines"),
    [
        (UserError("No lake."), 2, ["mlproject x: No lake."]),
        (RefusedError("Refused."), 3, ["mlproject x: Refused."]),
        (MachineError("No memory."), 1, ["mlproject x: No memory."]),
        (KeyboardInterrupt(), 130, ["mlproject x: stopped; what was committed stays"]),
        (NotFoundError("No server\nat all"), 1, ["mlproject x: MLflow: No server" + AGAIN]),
        (Py4JError("No method\nTrace: x"), 1, ["mlproject x: Spark stopped: No method" + AGAIN]),
        (OSError(AWAY), 1, [f"mlproject x: S3: {AWAY}{AGAIN}"]),
        (OSError(errno.ENOSPC, "Full"), 1, ["mlproject x: [Errno 28] Full" + AGAIN]),
    ],
)
def test_an_error_that_is_no_bug_is_one_line_and_an_exit_code(error, code, lines, capsys):
    with pytest.raises(SystemExit) as ended, exit_codes("mlproject x"):
        raise error
    assert code == ended.value.code
    assert lines == capsys.readouterr().err.splitlines()


@pytest.mark.parametrize("error", [KeyError("x"), OSError(errno.ENOENT, "gone")])
def test_a_bug_is_left_to_python(error):
    with pytest.raises(type(error)), exit_codes("mlproject x"):
        raise error


def test_the_first_signal_sets_the_event_and_the_second_ends(capfd):
    with stopped_by_signals() as stopped:
        assert not stopped.is_set()
        signal.raise_signal(signal.SIGTERM)
        assert stopped.is_set()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert "Stopping after the current commit" in capfd.readouterr().err


def test_an_error_after_a_signal_is_the_stop():
    with pytest.raises(KeyboardInterrupt), stopped_by_signals():
        signal.raise_signal(signal.SIGTERM)
        raise UserError("Spark's workers were stopped too")


def test_json_has_stdout_to_itself(capfd):
    with stdout_to_stderr():
        sys.stdout.write("for a person\n")
        subprocess.run(["echo", "of a process"], check=True)
    print_json({"a": 1})
    output, errors = capfd.readouterr()
    assert {"a": 1} == json.loads(output)
    assert ["for a person", "of a process"] == sorted(errors.splitlines())


START = """
import sys
from mlproject import cli
cli.main({words}, standalone_mode=False)
print(sorted({{"mlflow", "pyspark", "torch", "tensorflow", "uvicorn"}} & set(sys.modules)))
"""


def test_help_imports_no_framework():
    code = START.format(words=["--help"])
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "[]" == done.stdout.splitlines()[-1]


@pytest.mark.parametrize(
    ("engine", "reason", "line"),
    [
        ("native", "it cannot", "It is run by torch (engine=native): it cannot\n"),
        ("native", "", "It is run by torch (engine=native)\n"),
        ("onnxruntime", "", "It is run by ONNX Runtime, which predicts what torch does\n"),
    ],
)
def test_what_runs_a_new_version_is_one_line_with_the_reason(capsys, engine, reason, line):
    print_engine("torch", engine, reason)
    assert line == capsys.readouterr().out
