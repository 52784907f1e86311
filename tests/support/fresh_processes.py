"""Python code in processes of their own: one JVM is all that a process gets."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path


def users_environment() -> dict[str, str]:
    """The environment of this process, without the settings of the tests' Spark sessions."""
    ours = ("SPARK_MASTER", "PYSPARK_SUBMIT_ARGS")
    return {name: value for name, value in os.environ.items() if name not in ours}


def run(
    code: str, cwd: Path, *arguments: str, **environment: str
) -> subprocess.CompletedProcess[str]:
    return run_words([sys.executable, "-c", code, *arguments], cwd, **environment)


# Each command as the console runs it, in a session of its own but in one JVM.
COMMANDS = """
import json, sys
from mlproject import cli
for words in json.loads(sys.argv[1]):
    print(*words, flush=True)
    try:
        cli.main(words, prog_name="mlproject")
    except SystemExit as ended:
        if ended.code:
            raise
"""


def run_commands(
    cwd: Path, commands: Sequence[Sequence[str]], *more: str, **environment: str
) -> str:
    """What commands print, one after the other in one process; each gets the words `more` too."""
    words = json.dumps([[*command, *more] for command in commands])
    done = run(COMMANDS, cwd, words, **environment)
    assert 0 == done.returncode, done.stdout + done.stderr
    return done.stdout + done.stderr


def run_words(
    words: Sequence[str], cwd: Path, **environment: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        words,
        cwd=cwd,
        env={**users_environment(), **environment},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def mlflow_run(folder: Path, project: str, *words: str, **environment: str) -> str:
    """What `mlflow run PROJECT WORDS` prints in a folder, with a user's environment.

    PWD is not the folder, as in a notebook.
    """
    ours = ("MLFLOW_", "PYTHONPATH", "SPARK_", "PYSPARK_")
    kept = {name: word for name, word in os.environ.items() if not name.startswith(ours)}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["mlflow", "run", project, *words],
        cwd=folder,
        env={**kept, "PATH": path, "MLFLOW_DISABLE_TELEMETRY": "true", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert 0 == done.returncode, done.stdout[-5000:]
    return done.stdout


def without_java(folder: Path) -> Path:
    """A new folder for PATH with the programs that Spark's scripts call, and no Java."""
    folder.mkdir()
    for name in ("bash", "sh", "env", "dirname", "basename", "ps", "chmod", "uname", "ls", "rm"):
        (folder / name).symlink_to(shutil.which(name))
    return folder
