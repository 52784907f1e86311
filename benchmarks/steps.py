"""Seconds since the start of a command's process at which its steps begin and end.

    python benchmarks/steps.py ingest --source photos
    python benchmarks/steps.py --checkout FOLDER score --model models:/photos/1

Prints a line for each on stderr. FOLDER is another checkout of the project, as of an older commit;
steps that it lacks are left out. Linux only.
"""

import functools
import importlib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).parents[1]
STEPS = {
    "ingest": (
        ("mlproject.integrations.mlflow_tracking", "connect"),
        ("mlproject.ingestion.known_files", "plan"),
        ("mlproject.integrations.spark_session", "_start"),  # before decision 21
        ("mlproject.integrations.spark_start", "_start"),
        ("mlproject.ingestion.file_tasks", "write_rows"),
        ("mlproject.lake.commits", "append_files"),
        ("mlproject.integrations.spark_session", "_stop"),
    ),
    "score": (
        ("mlproject.integrations.mlflow_tracking", "connect"),
        ("mlproject.versions.registry", "resolve"),
        ("mlproject.integrations.spark_session", "_start"),
        ("mlproject.integrations.spark_start", "_start"),
        ("mlproject.scoring.prediction_rows", "predict"),
        ("mlproject.scoring.prediction_rows", "write"),
        ("mlproject.lake.commits", "append_files"),
        ("mlproject.integrations.spark_session", "_stop"),
    ),
}


def main() -> None:
    """Runs the command in this process."""
    words = sys.argv[1:]
    checkout = PROJECT
    if words[:1] == ["--checkout"]:
        checkout, words = Path(words[1]).resolve(), words[2:]
    folders = (str(checkout / "src"), str(checkout))
    sys.path[:0] = folders
    os.environ["PYTHONPATH"] = os.pathsep.join(folders)  # of Spark's workers
    cli = importlib.import_module("mlproject.cli")
    invoke = cli.Command.invoke

    def timed(command: Any, context: Any) -> Any:
        report("the command is imported")
        for module, name in STEPS[words[0]]:
            time_calls(module, name)
        return invoke(command, context)

    cli.Command.invoke = timed
    try:
        cli.main(words, prog_name="mlproject")
    finally:
        report("the end")


def time_calls(module: str, name: str) -> None:
    """Reports each call of a function of a module, if it has one."""
    try:
        owner = importlib.import_module(module)
        function: Callable[..., Any] = getattr(owner, name)
    except (ImportError, AttributeError):
        return

    @functools.wraps(function)
    def reported(*given: Any, **options: Any) -> Any:
        report(f"{name} begins")
        try:
            return function(*given, **options)
        finally:
            report(f"{name} ends")

    setattr(owner, name, reported)


def report(event: str) -> None:
    """Prints what happens now."""
    # Source: proc(5), starttime of /proc/self/stat
    ticks = Path("/proc/self/stat").read_text(encoding="ascii").rsplit(")", 1)[1].split()[19]
    uptime = float(Path("/proc/uptime").read_text(encoding="ascii").split()[0])
    since = uptime - int(ticks) / os.sysconf("SC_CLK_TCK")
    sys.stderr.write(f"{since:6.1f} s  {event}\n")


if __name__ == "__main__":
    main()
