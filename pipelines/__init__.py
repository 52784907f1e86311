"""The verbs: each parses its arguments, opens Spark and MLflow, calls the library, and prints."""

import argparse
import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from mlproject.errors import MlprojectError
from mlproject.frameworks import OnTold


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


def _be_quiet() -> None:
    os.environ["MLFLOW_LOGGING_LEVEL"] = "WARNING"  # in the processes that we start
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    # It warns of env_manager="local", which `score` checks the requirements for itself.
    logging.getLogger("mlflow.pyfunc").setLevel(logging.ERROR)
    # TensorFlow tells of missing CUDA libraries and of CPU features at import, at level error.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def say_wait(holder: str) -> None:
    """Tells that another process writes the lake."""
    print(f"The lake is being written by {holder}; waiting ...", flush=True)


@contextmanager
def progress(*steps: str) -> Iterator[list[OnTold]]:
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
