"""Options are made from the signature and the docstring of a public function."""

from collections.abc import Callable, Sequence
from typing import Literal

import click
import pytest
from click.testing import CliRunner

import mlproject
from mlproject import cli
from mlproject.commands import parameters


def bake(
    cake: str,
    *,
    layers: int = 2,
    hours: float = 0.5,
    icing: Literal["", "thin", "thick"] = "",
    dry_run: bool = False,
    fruits: Sequence[str] = (),
    again: bool | Sequence[str] = False,
    stop: Callable[[], bool] = lambda: False,
    on_layer: Callable[[int], None] | None = None,
) -> None:
    """Bakes.

    Args:
        cake: Its name; see: the
            second line.
        layers: Layers.
        hours: Hours in the oven.
        icing: How thick.
        dry_run: Whether nothing is baked.
        fruits: Fruits on it.
        again: Whether, or which, are baked again.
        stop: Asked between layers.
        on_layer: Called after each.

    Raises:
        UserError: No oven.
    """


def baked(*words: str):
    """What the function is called with, or how the command ended."""
    called = {}
    command = click.Command(
        "bake", params=list(parameters.options(bake)), callback=lambda **given: called.update(given)
    )
    result = CliRunner().invoke(command, words)
    return called if result.exit_code == 0 else (result.exit_code, result.output.splitlines()[-1])


DEFAULTS = {"cake": "x", "layers": 2, "hours": 0.5, "icing": "", "dry_run": False, "fruits": []}
DEFAULTS["again"] = False


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--cake", "x"], {}),
        (["--cake", "x", "--layers", "3", "--hours", "1"], {"layers": 3, "hours": 1.0}),
        (["--cake", "x", "--icing", "thin"], {"icing": "thin"}),
        (["--cake", "x", "--icing", ""], {}),
        (["--cake", "x", "--dry_run", "true"], {"dry_run": True}),
        (["--cake", "x", "--dry_run", "false"], {}),
        (["--dry_run", "--cake", "x"], {"dry_run": True}),
        (["--cake", "x", "--fruits", "fig, plum,"], {"fruits": ["fig", "plum"]}),
        (["--cake", "x", "--again", "true"], {"again": True}),
        (["--again", "--cake", "x"], {"again": True}),
        (["--cake", "x", "--again", "fig,plum"], {"again": ["fig", "plum"]}),
    ],
)
def test_arguments_become_the_parameters_of_the_function(words, expected):
    assert {**DEFAULTS, **expected} == baked(*words)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "Missing option '--cake'."),
        (["--cake", "x", "--layers", "two"], "'two' is not a valid integer."),
        (["--cake", "x", "--dry_run", "yes"], "'yes' is neither 'true' nor 'false'"),
        (["--cake", "x", "--icing", "pink"], "'pink' is not one of '', 'thin', 'thick'."),
        (["--cake", "x", "--stop", "1"], "No such option"),
    ],
)
def test_a_wrong_argument_is_the_users_error(words, message):
    code, last = baked(*words)
    assert 2 == code
    assert message in last


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["replay", "--pointer", "x"], "mlproject replay: No such option '--pointer'."),
        (["score"], "mlproject score: Missing option '--model'."),
        (["scores"], "mlproject: No such command 'scores'."),
    ],
)
def test_a_wrong_word_is_one_line_that_says_where_the_right_ones_stand(words, message):
    result = CliRunner().invoke(cli.main, words, prog_name="mlproject")
    assert (2, 1) == (result.exit_code, len(result.stderr.splitlines()))
    assert result.stderr.startswith(message)
    assert result.stderr.endswith("--help\n")


def test_texts_come_from_the_docstring():
    texts = parameters.descriptions(bake)
    assert "Its name; see: the second line." == texts["cake"]
    assert {"stop", "on_layer", *DEFAULTS} == set(texts)


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_each_command_explains_each_option(name):
    result = CliRunner().invoke(cli.main, [name, "--help"], prog_name="mlproject")
    assert 0 == result.exit_code, result.output
    assert f"Usage: mlproject {name} [OPTIONS]" in result.output


def test_help_lists_the_commands_with_one_line_each():
    result = CliRunner().invoke(cli.main, ["--help"], terminal_width=300)
    listed = [line.split()[0] for line in result.output.split("Commands:")[1].splitlines() if line]
    assert list(cli.COMMANDS) == listed


def test_an_unknown_command_is_the_users_error():
    assert 2 == CliRunner().invoke(cli.main, ["bake"]).exit_code


def test_public_functions_are_found_and_listed_and_others_are_not():
    for name in mlproject.__all__:
        assert name == getattr(mlproject, name).__name__
    assert set(mlproject.__all__) <= set(dir(mlproject))
    with pytest.raises(AttributeError, match="no attribute 'bake'"):
        mlproject.bake  # noqa: B018


def test_the_old_name_of_an_option_still_works_and_prints_the_new_one(store):
    words = ["score", "--model", "models:/nobody/1", "--wave_images=5"]
    result = CliRunner().invoke(cli.main, words, prog_name="mlproject")
    assert 2 == result.exit_code
    assert (
        "mlproject score: wave_images is now called batch_images" == result.stderr.splitlines()[0]
    )
    assert "There is no model 'nobody'" in result.stderr.splitlines()[1]
