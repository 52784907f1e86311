"""Keras and torch, each in a process of its own: the two never share one (docs/decisions/0002)."""

import contextlib
import importlib
import multiprocessing
import os
import pickle
import signal
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, ParamSpec, Protocol, TypeVar

import mlflow

from mlproject.errors import MlprojectError
from mlproject.integrations.local_files import output_to

MODULES = {"keras": ("tensorflow", "keras"), "torch": ("torch", "torchvision")}
FRAMEWORKS = tuple(MODULES)

P = ParamSpec("P")
T = TypeVar("T")
OnTold = Callable[[int, int], None]

_TOLD, _RETURNED, _RAISED = "told", "returned", "raised"
_to_parent: Connection | None = None


class Call(Protocol):
    """Calls a function somewhere: its arguments and what it returns or raises are pickled."""

    def __call__(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What `function` returns or raises."""
        ...


@contextlib.contextmanager
def process(
    framework: str,
    on_told: OnTold = lambda done, total: None,
    *,
    timeout_s: float | None = None,
) -> Iterator[Call]:
    """A `Call` into one new process, which imports the framework meanwhile and ends with the block.

    The active MLflow run is active there too. As with all of `multiprocessing`, a script of yours
    that uses it keeps its own work under `if __name__ == "__main__":`.

    Args:
        framework: `keras` or `torch`; of any other name nothing is imported.
        on_told: Called with what `tell` is told there.
        timeout_s: Seconds in which a call must return or tell something; None = for ever.

    Raises:
        MlprojectError: From a call, when the process ended before it answered, or took too long.
    """
    run = mlflow.active_run()
    spawn = multiprocessing.get_context("spawn")  # a fork would copy the locks of our threads
    ours, theirs = spawn.Pipe()
    with tempfile.TemporaryDirectory(prefix="mlproject-") as folder:
        log = Path(folder) / "log.txt"
        arguments = (framework, run.info.run_id if run else None, theirs, log)
        child = spawn.Process(target=_serve, args=arguments)
        child.start()
        theirs.close()

        def call(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
            try:
                ours.send((function, args, kwargs))
                while (answer := _next(ours, timeout_s))[0] == _TOLD:
                    on_told(*answer[1])
            except (EOFError, ConnectionError) as error:
                child.join()
                sys.stderr.write(log.read_text(errors="replace") if log.is_file() else "")
                raise MlprojectError(
                    f"The process that runs {framework} ended before it answered (exit code "
                    f"{child.exitcode}; -9 is for want of memory: make batches or images smaller)"
                ) from error
            if answer[0] == _RAISED:
                raise answer[1]
            returned: T = answer[1]
            return returned

        try:
            yield call
        finally:
            child.kill()  # it holds nothing: what it was called for is done, or not wanted
            child.join()
            ours.close()


def _next(calls: Connection, timeout_s: float | None) -> Any:
    if not calls.poll(timeout_s):
        raise MlprojectError(f"no answer in {timeout_s:g} s")
    return calls.recv()


def tell(done: int, total: int) -> None:
    """From a function that was called: tells `on_told` how far it is."""
    if _to_parent is not None:
        _to_parent.send((_TOLD, (done, total)))


def _serve(framework: str, run_id: str | None, calls: Connection, log: Path) -> None:
    """The life of the new process."""
    global _to_parent  # noqa: PLW0603 - one for each process, which serves one parent
    _to_parent = calls
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's, who ends this process
    threading.Thread(target=_end_with_parent, daemon=True).start()
    begun = _tried(_begin, framework, run_id, log)
    with contextlib.suppress(EOFError, ConnectionError):  # the parent is gone
        while True:
            function, args, kwargs = calls.recv()
            failed = begun[0] == _RAISED
            calls.send(begun if failed else _tried(function, *args, **kwargs))
    os._exit(0)  # without MLflow's last act, which would end the run: it is the parent's


def _begin(framework: str, run_id: str | None, log: Path) -> None:
    # Another backend would bring another framework into this process.
    os.environ["KERAS_BACKEND"] = "tensorflow"
    # torch's threads spin while they wait, and beside any other busy process they then take ten
    # times as long (measured on 2 cores). Read when libgomp is loaded, so before torch is.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # TensorFlow's words at each import: no setting of its own silences them.
    with output_to(log):
        for module in MODULES.get(framework, ()):
            importlib.import_module(module)
    log.unlink()
    if run_id:
        mlflow.start_run(run_id=run_id)


def _tried(function: Callable[..., Any], *args: Any, **kwargs: Any) -> tuple[str, Any]:
    """What a function returns or raises, as an answer that can be sent."""
    try:
        return _RETURNED, function(*args, **kwargs)
    except Exception as error:  # noqa: BLE001 - the parent raises it
        words = "".join(traceback.format_exception(error))
        try:
            # Some exceptions can be pickled and not be made again.
            pickle.loads(pickle.dumps(error))  # noqa: S301 - our own words
        except Exception:  # noqa: BLE001 - whatever its class does
            return _RAISED, RuntimeError(words)
        if not isinstance(error, MlprojectError):
            error.add_note(words)
        return _RAISED, error


def _end_with_parent() -> None:
    """Ends this process when its parent was killed."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
