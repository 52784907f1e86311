"""What the verbs share: telling of progress."""

import os
import pty
import subprocess
import sys

TELL = """
from pipelines import progress
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
