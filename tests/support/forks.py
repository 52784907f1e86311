"""Processes forked from one that has imported what most of them need, which takes seconds."""

import multiprocessing
import os
import sys
from multiprocessing.process import BaseProcess
from pathlib import Path

# A module that cannot be imported is passed over here, and each process imports it itself.
IMPORTED = (
    "mlproject.commands.rescore",
    "mlproject.commands.rollouts",
    "mlproject.ingestion.ingest",
    "mlproject.lake.maintenance",
    "mlproject.rollout.rescoring",
    "mlproject.scoring.scoring_runs",
    "mlflow.store.model_registry.sqlalchemy_store",
    "mlflow.store.tracking.sqlalchemy_store",
)

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(list(IMPORTED))


def start(code: str, *arguments: str, cwd: Path, output: Path) -> BaseProcess:
    """Starts Python code as `python -c` does, in a process group of its own.

    Its stdout and stderr go into the file `output`.
    """
    process = FORKS.Process(target=_run, args=(code, arguments, cwd, output, dict(os.environ)))
    process.start()
    return process


def _run(
    code: str, arguments: tuple[str, ...], cwd: Path, output: Path, environment: dict[str, str]
) -> None:
    os.setsid()
    os.environ.clear()  # those of the process from which this one was forked
    os.environ.update(environment)
    os.chdir(cwd)
    file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for standard in (1, 2):
        os.dup2(file, standard)
    sys.argv = ["-c", *arguments]
    exec(compile(code, "<forked>", "exec"), {"__name__": "__main__"})  # noqa: S102 - a test's own
