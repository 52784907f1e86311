"""The verbs: each parses its arguments, opens Spark and MLflow, calls the library, and prints."""

import argparse
import errno
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from functools import partial
from typing import TYPE_CHECKING, Any

from mlflow.exceptions import MlflowException

from mlproject.errors import MlprojectError, UserError
from mlproject.integrations.framework_process import OnProgress
from mlproject.integrations.outages import error_message, spark_error

if TYPE_CHECKING:  # it imports Spark, which not every command needs
    from mlproject.ingestion.new_images import BatchProgress

DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)


def parser(verb: str, doc: str) -> argparse.ArgumentParser:
    """An empty parser for a verb, whose help is the verb's module docstring."""
    return argparse.ArgumentParser(
        prog=f"mlproject {verb}",
        description=doc,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


def command(
    arguments: argparse.ArgumentParser, work: Callable[[argparse.Namespace], object]
) -> None:
    """Runs a verb and ends the process: 0 done, 1 a bug of ours, 2 the user's, 3 refused."""
    _be_quiet()
    try:
        work(arguments.parse_args())
    except MlprojectError as error:
        print(f"{arguments.prog}: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print(f"{arguments.prog}: stopped; what was committed stands", file=sys.stderr)
        sys.exit(130)  # Source: POSIX shells, 128 + SIGINT
    except Exception as error:
        if isinstance(error, MlflowException):
            print(f"{arguments.prog}: MLflow: {error_message(error)}", file=sys.stderr)
        elif spark_error(error) is not None:
            print(f"{arguments.prog}: Spark stopped: {error_message(error)}", file=sys.stderr)
        elif isinstance(error, OSError) and error.errno in DISK:
            print(f"{arguments.prog}: {error_message(error)}", file=sys.stderr)
        else:
            raise
        print("What was committed stands; run again when that is mended", file=sys.stderr)
        sys.exit(1)


def _be_quiet() -> None:
    os.environ["MLFLOW_LOGGING_LEVEL"] = "WARNING"  # in the processes that we start
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    # py4j prints a traceback when the JVM dies, of which `command` tells.
    logging.getLogger().addFilter(lambda record: record.msg != "Exception while sending command.")
    # It warns of env_manager="local", which `score` checks the requirements for itself.
    logging.getLogger("mlflow.pyfunc").setLevel(logging.ERROR)
    # A version has few files.
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    # TensorFlow tells of missing CUDA libraries and of CPU features at import, at level error.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


@contextmanager
def stopped_by_signals() -> Iterator[threading.Event]:
    """An event that SIGTERM and Ctrl-C set, to end after the commit at hand; two end at once.

    Who stops us may stop Spark too, or the workers of a version: that is no other end.
    """
    stopped = threading.Event()

    def stop(*_: object) -> None:
        if stopped.is_set():
            raise KeyboardInterrupt
        stopped.set()
        os.write(2, b"Stopping after what is at hand (again: at once)\n")

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


def listed(words: str) -> list[str]:
    """The words of a comma-separated option, without empty ones."""
    return [word.strip() for word in words.split(",") if word.strip()]


def require_shares(arguments: argparse.Namespace, *names: str) -> None:
    """Raises UserError for an option that is not between 0 and 1."""
    for name in names:
        if not 0 <= getattr(arguments, name) <= 1:
            raise UserError(f"{name}={getattr(arguments, name)} is not between 0 and 1")


def add_json(arguments: argparse.ArgumentParser) -> None:
    """The option of verbs whose tables scripts read too; `--json` alone is true."""
    arguments.add_argument(
        "--json",
        nargs="?",
        const="true",
        default="false",
        choices=("true", "false"),
        help="true = JSON on stdout instead of tables",
    )


@contextmanager
def stdout_to_stderr() -> Iterator[None]:
    """Keeps stdout for JSON: what is printed in the block, by processes begun in it too."""
    sys.stdout.flush()
    before = os.dup(1)
    os.dup2(2, 1)
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        os.dup2(before, 1)
        os.close(before)


def print_table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Prints a table that fits 100 columns; columns whose name ends in a blank are numbers."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in columns:
        justify: Any = "right" if name.endswith(" ") else "left"
        table.add_column(name.strip(), justify=justify, overflow="fold")
    for row in rows:
        table.add_row(*map(str, row))
    width = min(100, Console().width) if sys.stdout.isatty() else 100
    Console(width=width, highlight=False, emoji=False, markup=False).print(table)


def say(message: str) -> None:
    """Prints a line at once."""
    print(message, flush=True)


def say_wait(holder: str) -> None:
    """Tells that another process writes the lake."""
    print(f"The lake is being written by {holder}; waiting ...", flush=True)


@contextmanager
def progress(*steps: str) -> Iterator[list[OnProgress]]:
    """For each step a function to tell (done, total) to: bars for a person, else plain lines."""
    if not sys.stderr.isatty():
        yield [partial(_say_progress, step) for step in steps]
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    columns = ("{task.description}", BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        tasks = [bars.add_task(step, total=None) for step in steps]
        yield [partial(_move_bar, bars, task) for task in tasks]


def _say_progress(step: str, done: int, total: int) -> None:
    print(f"{step}: {done} of {total}", flush=True)


def _move_bar(bars: Any, task: Any, done: int, total: int) -> None:
    bars.update(task, completed=done, total=total)


@contextmanager
def progress_of_bytes(step: str) -> Iterator[Callable[["BatchProgress"], None]]:
    """A function to tell of files and bytes done: a bar for a person, else plain lines."""
    if not sys.stderr.isatty():
        yield partial(_say_bytes, step, time.monotonic())
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    files = TextColumn("{task.fields[files]} files")
    columns = (BarColumn(), files, DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    bars = Progress("{task.description}", *columns, console=Console(stderr=True), transient=True)
    with bars:
        task = bars.add_task(step, total=None, files="0")
        yield lambda done: bars.update(
            task,
            completed=done.size_bytes,
            total=done.all_bytes,
            files=f"{done.files}/{done.all_files}",
        )


def _say_bytes(step: str, began: float, done: "BatchProgress") -> None:
    rate = done.size_bytes / (time.monotonic() - began)
    left = (done.all_bytes - done.size_bytes) / rate if rate else 0
    print(
        f"{step}: {done.files} of {done.all_files} files, {done.size_bytes / 1e6:.1f} of "
        f"{done.all_bytes / 1e6:.1f} MB, {rate / 1e6:.1f} MB/s, {left:.0f} s left",
        flush=True,
    )
