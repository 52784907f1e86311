"""What commands share: progress and error messages."""

import os
import pty
import subprocess
import sys

import pytest
from py4j.protocol import Py4JError, Py4JJavaError, Py4JNetworkError

from mlproject.integrations.outages import error_message

TELL = """
from mlproject.commands.console import progress
with progress("score") as [told]:
    told(3, 10)
    told(10, 10)
print("after")
"""


def test_progress_is_plain_lines_where_nobody_looks():
    done = subprocess.run([sys.executable, "-c", TELL], capture_output=True, text=True, check=True)
    assert ["score: 3 of 10", "score: 10 of 10", "after"] == done.stdout.splitlines()
    assert "" == done.stderr


def test_progress_is_a_bar_where_a_person_looks_and_nothing_is_left_of_it():
    theirs, ours = pty.openpty()
    done = subprocess.run(
        [sys.executable, "-c", TELL], stdout=subprocess.PIPE, stderr=ours, text=True, check=True
    )
    os.close(ours)
    seen = os.read(theirs, 100_000).decode()
    os.close(theirs)
    assert ["after"] == done.stdout.splitlines()
    assert "10/10" in seen
    assert "\x1b[2K" in seen  # the line is erased at the end


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
def test_the_end_of_sparks_jvm_is_told_as_such(error):
    assert error_message(error).startswith("its JVM ended")


@pytest.mark.parametrize(
    "words", ["no such method\nTrace:\nat java", "X does not exist in the JVM"]
)
def test_another_error_of_py4j_is_told_in_its_own_words(words):
    assert words.splitlines()[0] == error_message(Py4JError(words))
