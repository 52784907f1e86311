"""Kills a process, as kill -9 does, right before or after it writes to a lake for the n-th time."""

import tempfile
from pathlib import Path

from tests.support import forks

HOOK = """
import os, signal, sys
import deltalake
from mlproject.lake import data_files, vacuum

left = int(sys.argv[1])

def count():
    global left
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    left -= 1

def counted(function):
    def call(*arguments, **options):
        count()
        result = function(*arguments, **options)
        count()
        return result
    return call

for name in ("create_write_transaction", "create_checkpoint", "cleanup_metadata"):
    setattr(deltalake.DeltaTable, name, counted(getattr(deltalake.DeltaTable, name)))
data_files.write = counted(data_files.write)
data_files.delete = counted(data_files.delete)
vacuum.remove = counted(vacuum.remove)
"""


def killed_at_write(code: str, number: int) -> int | str:
    """Runs code that is killed at a moment of a write, from 0: what it ended with.

    Each write of a data file, commit, checkpoint and removal of files has two moments: before and
    after.

    Returns:
        The exit status, or the last line of its output when it failed by itself.
    """
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder, "output.txt")
        process = forks.start(HOOK + code, str(number), cwd=Path.cwd(), output=output)
        process.join(300)
        assert process.exitcode is not None, output.read_text()
        if process.exitcode > 0:
            return output.read_text().strip().splitlines()[-1]
        return process.exitcode
