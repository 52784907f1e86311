"""Commands run in this process, as the console runs them: words in, output and exit code out."""

from click.testing import CliRunner, Result

from mlproject import cli


def run_command(name: str, *words: str, code: int = 0) -> Result:
    """The result of `mlproject NAME WORDS`; a bug, and another exit code, fail the test."""
    result = CliRunner().invoke(cli.main, [name, *map(str, words)], prog_name="mlproject")
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert code == result.exit_code, result.output
    return result
