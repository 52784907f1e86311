"""`mlflow run` of this project in one process with one Spark session, as each start takes seconds.

For examples, each of which is a few such commands: `make test-thorough` starts them as they are.
"""

import argparse
import gc
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Listener
from pathlib import Path

# What `mlflow` on PATH is: it asks the server, and prints and ends as the command did.
PROGRAM = """#!{python} -IS
import os, sys
from multiprocessing.connection import Client
with Client({address!r}) as server:
    server.send((os.getcwd(), dict(os.environ), sys.argv[1:]))
    code, output = server.recv()
print(output, end="")
sys.exit(code)
"""


@contextmanager
def running(folder: Path, environment: Mapping[str, str]) -> Iterator[Path]:
    """Makes a demo lake in a folder that has the project, and serves commands.

    Yields a folder for PATH with a program `mlflow`.
    """
    with tempfile.TemporaryDirectory() as programs:
        address = f"{programs}/server"
        program = Path(programs) / "mlflow"
        program.write_text(PROGRAM.format(python=sys.executable, address=address))
        program.chmod(0o755)
        words = [sys.executable, "-m", "tests.support.command_server", address]
        output = {"stdout": subprocess.PIPE, "text": True}
        with subprocess.Popen(words, cwd=folder, env=environment, **output) as process:
            try:
                printed = []
                while "ready\n" not in printed:
                    assert process.poll() is None, "".join(printed)
                    printed.append(process.stdout.readline())
                yield Path(programs)
            finally:
                process.terminate()


def command_of(cwd: str, words: Sequence[str]) -> list[str]:
    """The words behind `mlproject` that `mlflow WORDS` in a folder would run."""
    from mlflow.projects.utils import load_project

    parser = argparse.ArgumentParser(exit_on_error=False)
    parser.add_argument("verb", choices=["run"])
    parser.add_argument("project")
    parser.add_argument("-e", dest="name", default="main")
    parser.add_argument("--env-manager", choices=["local"], required=True)
    parser.add_argument("-P", dest="parameters", action="append", default=[])
    given = parser.parse_args(words)
    project = load_project(str(Path(cwd, given.project).resolve()))
    parameters = dict(one.split("=", 1) for one in given.parameters)
    command = project.get_entry_point(given.name).compute_command(parameters, None)
    launcher, *options = shlex.split(command.partition(" -m pipelines.")[2])
    return [launcher, *options]


def main(address: str) -> None:
    from click.testing import CliRunner
    from sqlalchemy import Engine

    from mlproject import cli
    from mlproject.integrations.spark_session import session
    from tests.support import demo_lake

    home, environment = Path.cwd(), dict(os.environ)
    with session("commands") as spark, Listener(address) as listener:
        demo_lake.main()
        print("ready", file=sys.__stdout__, flush=True)
        while True:
            with listener.accept() as connection:
                cwd, theirs, words = connection.recv()
                # A test may have put other files in the place of what is kept in memory here.
                spark._jvm.org.apache.spark.sql.delta.DeltaLog.clearCache()
                for one in gc.get_objects():
                    if isinstance(one, Engine):
                        one.dispose()
                os.environ.clear()
                os.environ.update(environment)
                os.environ.update((k, v) for k, v in theirs.items() if k.startswith("MLFLOW_"))
                os.chdir(cwd)
                done = CliRunner().invoke(cli.main, command_of(cwd, words), prog_name="mlproject")
                os.chdir(home)
                ended = isinstance(done.exception, SystemExit | None)
                connection.send((done.exit_code, done.output if ended else repr(done.exception)))


if __name__ == "__main__":
    main(sys.argv[1])
