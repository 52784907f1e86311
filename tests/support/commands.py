"""Commands run as the console runs them, here or in a process: words in, output and code out."""

import subprocess
from pathlib import Path

from click.testing import CliRunner, Result

from mlproject import cli
from tests.conftest import start_command


def run_command(name: str, *words: str, code: int = 0) -> Result:
    """The result of `mlproject NAME WORDS`; a bug, and another exit code, fail the test."""
    result = CliRunner().invoke(cli.main, [name, *map(str, words)], prog_name="mlproject")
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert code == result.exit_code, result.output
    return result


def errors_of_process(name: str, *words: str, cwd: Path, code: int) -> list[str]:
    """All lines of stderr of a command in a process of its own; another exit code fails the test.

    Here are the lines of libraries, of the JVM and of workers too, which `run_command` does not
    see.
    """
    process = start_command(name, *words, cwd=cwd, stderr=subprocess.PIPE)
    output, errors = process.communicate(timeout=300)
    assert code == process.returncode, output + errors
    return errors.splitlines()
