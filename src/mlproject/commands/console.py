"""The terminal: exit codes, signals, tables, JSON and progress."""

import errno
import json
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, TextIO

import click

from mlproject.commands import log_lines
from mlproject.errors import MlprojectError, UserError
from mlproject.integrations.outages import error_message, spark_error
from mlproject.masking import mask
from mlproject.storage import local_files, object_storage

DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)
AGAIN = "What was committed stays. Fix this, then run the command again"
WORKING_DIRECTORY = "MLPROJECT_WORKING_DIRECTORY"  # a variable that MLproject sets
STOPPED = 130  # exit code. Source: POSIX shells, 128 + SIGINT
WIDTH = 100  # columns of text, at most

OnProgress = Callable[[int, int], None]


class MaskedStream:
    """A text stream that writes *** in the place of each secret.

    What is printed is ours, but also of MLflow (the URL of a run), of warnings, and the traceback
    of a bug.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Writes a text; one that is printed is given whole, so no secret is cut in two."""
        self._stream.write(mask(text))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Writes several texts."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        """All else is of the stream itself."""
        return getattr(self._stream, name)


def mask_output() -> None:
    """Keeps secrets out of all that Python prints in this process until it ends."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is not None and not isinstance(stream, MaskedStream):
            setattr(sys, name, MaskedStream(stream))


@contextmanager
def exit_codes(command: str) -> Iterator[None]:
    """Ends the process for an error in the block, in one line: 1 outage, 2 user's, 3 check failed.

    An error of ours, a bug, leaves the block as it is: Python prints it and ends with 1.
    """
    try:
        yield
    except MlprojectError as error:
        log_lines.write(f"{command}: {error}", "error")
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        log_lines.write(f"{command}: stopped; what was committed stays", "warning")
        sys.exit(STOPPED)
    except click.UsageError as error:
        path = error.ctx.command_path if error.ctx else command
        print(f"{path}: {error.format_message().rstrip('.')}. See {path} --help", file=sys.stderr)
        sys.exit(error.exit_code)
    except Exception as error:
        if any(kind.__module__ == "mlflow.exceptions" for kind in type(error).__mro__):
            system = "MLflow: "
        elif spark_error(error) is not None:
            system = "Spark stopped: "
        elif store := object_storage.outage(error):
            system = f"{store}: "
        elif isinstance(error, OSError) and error.errno in DISK:
            system = ""
        else:
            raise
        message = f"{command}: {system}{error_message(error).rstrip('.')}. {AGAIN}"
        log_lines.write(message, "error")
        sys.exit(1)


@contextmanager
def logged(log: log_lines.Format, command: str) -> Iterator[None]:
    """Writes the lines of a command, and the error that ends it, as text or as JSON."""
    with log_lines.written_as(log), exit_codes(f"mlproject {command}"):
        yield


def print_engine(framework: str, engine: str, reason: str) -> None:
    """Prints what runs a new version; `reason` is why the framework does, unless it was asked."""
    if engine == "native":
        print(f"It is run by {framework} (engine=native){f': {reason}' if reason else ''}")
    else:
        print(f"It is run by ONNX Runtime, which predicts what {framework} does")


def silence_libraries() -> None:
    """Keeps MLflow, py4j and TensorFlow from printing what our own messages report."""
    os.environ["MLFLOW_LOGGING_LEVEL"] = "WARNING"  # in the processes that we start
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    # py4j prints a traceback when the JVM ends, which `exit_codes` reports.
    logging.getLogger().addFilter(lambda record: record.msg != "Exception while sending command.")
    # It warns of env_manager="local"; scoring checks the version's requirements itself.
    logging.getLogger("mlflow.pyfunc").setLevel(logging.ERROR)
    # A version has few files.
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    # TensorFlow reports missing CUDA libraries and CPU features at import, at level error.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def complete_environment() -> None:
    """Names a user and a home folder where the system knows none, as in a container.

    MLflow, torch and others ask for them.
    """
    os.environ.setdefault("LOGNAME", local_files.user_name())
    try:
        Path.home()
    except RuntimeError:
        os.environ["HOME"] = str(local_files.cache_folder())


def enter_working_directory() -> None:
    """Enters the folder in which `mlflow run` was called, as `MLproject` names it.

    All relative paths of the person start there. MLflow starts a command in the project's folder,
    which may be a temporary clone. A relative PYTHONPATH starts in that folder: it becomes
    absolute, for the processes that we start, and they import nothing from the person's folder,
    which may have an `mlflow.py` of its own. Without the variable nothing changes.

    Raises:
        UserError: The folder cannot be entered.
    """
    folder = os.environ.pop(WORKING_DIRECTORY, None)
    if folder is None:
        return
    paths = filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))
    os.environ["PYTHONPATH"] = os.pathsep.join(str(Path(path).absolute()) for path in paths)
    os.environ["PYTHONSAFEPATH"] = "1"  # `python -m`, as Spark starts workers, omits its folder
    try:
        os.chdir(folder)
    except OSError as error:
        raise UserError(
            f"The working directory {folder!r} cannot be entered ({error.strerror}). Call "
            "mlflow run in another folder, or name one: -P working_directory=FOLDER"
        ) from error


@contextmanager
def stopped_by_signals() -> Iterator[threading.Event]:
    """An event that SIGTERM and Ctrl-C set, to end after the current commit; two end at once.

    The same signal may end Spark or its workers too: an error after it counts as the stop.
    """
    stopped = threading.Event()

    def stop(*_: object) -> None:
        if stopped.is_set():
            raise KeyboardInterrupt
        stopped.set()
        line = log_lines.line("Stopping after the current commit (a second signal stops at once)")
        os.write(2, f"{line}\n".encode())

    signals = (signal.SIGTERM, signal.SIGINT)
    before = [signal.signal(number, stop) for number in signals]
    try:
        yield stopped
    except Exception as error:
        if stopped.is_set() and (isinstance(error, MlprojectError) or spark_error(error)):
            raise KeyboardInterrupt from error
        raise
    finally:
        for number, handler in zip(signals, before, strict=True):
            signal.signal(number, handler)


@contextmanager
def stdout_to_stderr() -> Iterator[None]:
    """Keeps stdout for JSON: what the block prints, in its processes too, goes to stderr."""
    sys.stdout.flush()
    before = os.dup(1)
    os.dup2(2, 1)
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        os.dup2(before, 1)
        os.close(before)


def print_message(message: str) -> None:
    """Prints a line at once, also into a pipe."""
    log_lines.write(message)


def print_json(facts: object) -> None:
    """Prints JSON for scripts; times as in ISO 8601."""
    print(json.dumps(facts, indent=2, default=datetime.isoformat))


def print_table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Prints a table of at most `WIDTH` columns; names that end in a blank are of numbers."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in columns:
        justify: Any = "right" if name.endswith(" ") else "left"
        table.add_column(name.strip(), justify=justify, overflow="fold")
    for row in rows:
        table.add_row(*(mask(str(cell)) for cell in row))  # whole: a long one is folded
    width = min(WIDTH, Console().width) if sys.stdout.isatty() else WIDTH
    Console(width=width, highlight=False, emoji=False, markup=False).print(table)


@contextmanager
def progress(*steps: str) -> Iterator[list[OnProgress]]:
    """For each step a function that takes (done, total): bars in a terminal, else plain lines."""
    if not _has_bars():
        yield [partial(_print_progress, step) for step in steps]
        return
    from rich.progress import MofNCompleteColumn

    with _bars(MofNCompleteColumn()) as bars:
        tasks = [bars.add_task(step, total=None) for step in steps]
        yield [partial(_move_bar, bars, task) for task in tasks]


def _has_bars() -> bool:
    return sys.stderr.isatty() and not log_lines.is_json()


def _bars(*columns: Any) -> Any:
    """Bars on stderr of which nothing is left, with these columns between bar and time."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TimeRemainingColumn

    columns = ("{task.description}", BarColumn(), *columns, TimeRemainingColumn())
    return Progress(*columns, console=Console(stderr=True), transient=True)


def _print_progress(step: str, done: int, total: int) -> None:
    log_lines.write(f"{step}: {done} of {total}", step=step, done=done, total=total)


def _move_bar(bars: Any, task: Any, done: int, total: int) -> None:
    bars.update(task, completed=done, total=total)


@contextmanager
def progress_of_bytes(step: str) -> Iterator[Callable[[Any], None]]:
    """A function that takes an ingest's progress in files and bytes: a bar, else plain lines."""
    if not _has_bars():
        yield partial(_print_bytes, step, time.monotonic())
        return
    from rich.progress import DownloadColumn, TextColumn, TransferSpeedColumn

    files = TextColumn("{task.fields[files]} files")
    with _bars(files, DownloadColumn(), TransferSpeedColumn()) as bars:
        task = bars.add_task(step, total=None, files="0")
        yield lambda done: bars.update(
            task,
            completed=done.size_bytes,
            total=done.all_bytes,
            files=f"{done.files}/{done.all_files}",
        )


def _print_bytes(step: str, began: float, done: Any) -> None:
    rate = done.size_bytes / (time.monotonic() - began)
    left = (done.all_bytes - done.size_bytes) / rate if rate else 0
    log_lines.write(
        f"{step}: {done.files} of {done.all_files} files, {done.size_bytes / 1e6:.1f} of "
        f"{done.all_bytes / 1e6:.1f} MB, {rate / 1e6:.1f} MB/s, {left:.0f} s left",
        step=step,
        done=done.files,
        total=done.all_files,
        bytes=done.size_bytes,
        bytes_total=done.all_bytes,
    )
