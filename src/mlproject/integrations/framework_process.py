"""Runs Keras or torch in a process of its own: the two never share one (docs/decisions/0002)."""

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

from mlproject.errors import MachineError, MlprojectError
from mlproject.storage.local_files import output_to

MODULES = {"keras": ("tensorflow", "keras"), "torch": ("torch", "torchvision")}
FRAMEWORKS = tuple(MODULES)

P = ParamSpec("P")
T = TypeVar("T")
OnProgress = Callable[[int, int], None]

_PROGRESS, _RETURNED, _RAISED = "progress", "returned", "raised"
_to_parent: Connection | None = None


class Call(Protocol):
    """Calls a function in another process; arguments and results are pickled."""

    def __call__(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Returns or raises what `function` does."""
        ...


@contextlib.contextmanager
def process(
    framework: str,
    on_progress: OnProgress = lambda done, total: None,
    *,
    timeout_s: float | None = None,
) -> Iterator[Call]:
    """A `Call` into one new process, which imports the framework and ends with the block.

    The active MLflow run is active there too. As with all of `multiprocessing`, a script that uses
    it keeps its own work under `if __name__ == "__main__":`.

    Args:
        framework: `keras` or `torch`; for any other name nothing is imported.
        on_progress: Called with the arguments of `report_progress` in that process.
        timeout_s: Seconds in which a call must return or report progress; None = no limit.

    Raises:
        MachineError: From a call, when the process was killed, as for want of memory.
        MlprojectError: From a call, when it ended otherwise before it returned, or took too long.
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
                while (message := _receive(ours, timeout_s))[0] == _PROGRESS:
                    on_progress(*message[1])
            except (EOFError, ConnectionError) as error:
                child.join()
                sys.stderr.write(log.read_text(errors="replace") if log.is_file() else "")
                killed = child.exitcode == -signal.SIGKILL
                advice = "; too little memory, perhaps: use smaller batches or images"
                raise (MachineError if killed else MlprojectError)(
                    f"The process that runs {framework} ended before it returned (exit code "
                    f"{child.exitcode}{advice if killed else ''})"
                ) from error
            if message[0] == _RAISED:
                raise message[1]
            returned: T = message[1]
            return returned

        try:
            yield call
        finally:
            child.kill()  # it keeps nothing: its calls have returned or are not needed
            child.join()
            ours.close()


def _receive(calls: Connection, timeout_s: float | None) -> Any:
    if not calls.poll(timeout_s):
        raise MlprojectError(f"no result in {timeout_s:g} s")
    return calls.recv()


def report_progress(done: int, total: int) -> None:
    """Calls `on_progress` of the parent process; for functions that are called through `Call`."""
    if _to_parent is not None:
        _to_parent.send((_PROGRESS, (done, total)))


def _serve(framework: str, run_id: str | None, calls: Connection, log: Path) -> None:
    """Runs the calls of the parent in the new process."""
    global _to_parent  # noqa: PLW0603 - one for each process, which serves one parent
    _to_parent = calls
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C and ends this process
    threading.Thread(target=_end_with_parent, daemon=True).start()
    started = _try(_start, framework, run_id, log)
    with contextlib.suppress(EOFError, ConnectionError):  # the parent has ended
        while True:
            function, args, kwargs = calls.recv()
            failed = started[0] == _RAISED
            calls.send(started if failed else _try(function, *args, **kwargs))
    os._exit(0)  # without MLflow's exit handler, which would end the run of the parent


def _start(framework: str, run_id: str | None, log: Path) -> None:
    # Another backend would bring another framework into this process.
    os.environ["KERAS_BACKEND"] = "tensorflow"
    # Waiting threads of torch spin, and beside another busy process they take ten times as long
    # (measured on 2 cores). libgomp reads the variable when it is loaded, with torch.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # The output of TensorFlow at each import: no setting silences it.
    with output_to(log):
        for module in MODULES.get(framework, ()):
            importlib.import_module(module)
    log.unlink()
    if run_id:
        mlflow.start_run(run_id=run_id)


def _try(function: Callable[..., Any], *args: Any, **kwargs: Any) -> tuple[str, Any]:
    """What a function returns or raises, as a message that can be pickled."""
    try:
        return _RETURNED, function(*args, **kwargs)
    except Exception as error:  # noqa: BLE001 - the parent raises it
        text = "".join(traceback.format_exception(error))
        try:
            # Some exceptions can be pickled but not unpickled.
            pickle.loads(pickle.dumps(error))  # noqa: S301 - pickled here
        except Exception:  # noqa: BLE001 - whatever its class does
            return _RAISED, RuntimeError(text)
        if not isinstance(error, MlprojectError):
            error.add_note(text)
        return _RAISED, error


def _end_with_parent() -> None:
    """Ends this process when its parent was killed."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
