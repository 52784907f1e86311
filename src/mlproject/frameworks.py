"""Keras and torch, each in a process of its own: the two never share one (docs/decisions/0002)."""

import importlib
import multiprocessing
import os
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path
from typing import ParamSpec, Protocol, TypeVar

import mlflow

from mlproject.errors import MlprojectError
from mlproject.files import output_to

MODULES = {"keras": ("tensorflow", "keras"), "torch": ("torch", "torchvision")}
FRAMEWORKS = tuple(MODULES)

P = ParamSpec("P")
T = TypeVar("T")


class Call(Protocol):
    """Calls a function somewhere: its arguments and what it returns or raises are pickled."""

    def __call__(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What `function` returns or raises."""
        ...


@contextmanager
def process(framework: str) -> Iterator[Call]:
    """A `Call` into one new process, which imports the framework meanwhile and ends with the block.

    The active MLflow run is active there too. As with all of `multiprocessing`, a script of yours
    that uses it keeps its own work under `if __name__ == "__main__":`.

    Args:
        framework: `keras` or `torch`.

    Raises:
        MlprojectError: From a call, when the process was killed or could not begin.
    """
    run = mlflow.active_run()
    begin = (framework, run.info.run_id if run else None)
    spawn = multiprocessing.get_context("spawn")  # a fork would copy the locks of our threads
    with ProcessPoolExecutor(1, spawn, initializer=_begin, initargs=begin) as pool:
        pool.submit(os.getpid)  # begins now: an import takes some ten seconds

        def call(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
            try:
                return pool.submit(function, *args, **kwargs).result()
            except BrokenProcessPool as error:
                raise MlprojectError(
                    f"The process that runs {framework} ended at once. It says why above, or was "
                    "killed for want of memory: then make batches or images smaller"
                ) from error

        yield call


def _begin(framework: str, run_id: str | None) -> None:
    """Runs first in the new process."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    # torch's threads spin while they wait, and beside any other busy process they then take ten
    # times as long (measured on 2 cores). Read when libgomp is loaded, so before torch is.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    _import(MODULES[framework])
    if run_id:
        mlflow.start_run(run_id=run_id)


def _import(modules: Sequence[str]) -> None:
    """Imports without TensorFlow's words on each import, which no setting of its own silences."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log.txt"
        try:
            with output_to(log):
                for module in modules:
                    importlib.import_module(module)
        except Exception:
            sys.stderr.write(log.read_text(encoding="utf-8", errors="replace"))
            raise


def _end_with_parent() -> None:
    """Ends this process when its parent was killed: it would else wait for work for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
