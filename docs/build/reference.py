"""The generated parts of pages, as Markdown, from the code.

A page names a part as `{{ tables }}`, and the hook puts the text of `PARTS["tables"]()` there.
"""

import ast
import dataclasses
import inspect
import itertools
import re
import typing
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import import_graph
import yaml

import mlproject
from mlproject import cli, errors
from mlproject.inference.errors import ERRORS
from mlproject.lake.schemas import COLUMNS, PARTITIONS

PROJECT = Path(__file__).parents[2]
DECISIONS = PROJECT / "docs" / "decisions"
MEASUREMENTS = PROJECT / "benchmarks" / "measurements"
STOPPED = 130


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of a command."""

    name: str
    """Its name in MLproject, and the option's without the dashes."""
    default: str | None
    """As MLproject writes it; None = it must be given."""
    meaning: str
    """The help of the option."""


def entry_points() -> dict[str, dict[str, str | None]]:
    """The commands of MLproject: their parameters with their defaults, None = required.

    Without `working_directory`, which all have and the page describes once.
    """
    text = (PROJECT / "MLproject").read_text(encoding="utf-8")
    return {
        name: {
            parameter: str(given["default"]) if "default" in given else None
            for parameter, given in entry["parameters"].items()
            if parameter != "working_directory"
        }
        for name, entry in yaml.safe_load(text)["entry_points"].items()
    }


def command_help(name: str) -> tuple[str, dict[str, str]]:
    """What a command does, and the help of its options."""
    command = cli.main.get_command(None, "demo" if name == "main" else name)
    meanings = {option.name: _meaning(option) for option in command.options()}
    return (command.help or "").replace("\b\n", ""), meanings


def commands() -> str:
    """A section for each command: what it does, a command to paste, its parameters."""
    return "\n".join(_command(name, given) for name, given in entry_points().items())


def command_list() -> str:
    """The commands with one line each."""
    rows = [
        (f"[`{name}`](../reference/commands.md#{name})", _first_paragraph(command_help(name)[0]))
        for name in entry_points()
    ]
    return _table(("command", "what it does"), rows)


def tables() -> str:
    """A section for each table: its columns with their types and meanings."""
    parts = []
    for name, columns in COLUMNS.items():
        rows = [(f"`{column}`", str(kind), text) for column, (kind, text) in columns.items()]
        partitions = PARTITIONS.get(name)
        partitioned = f"Partitioned by {_codes(partitions)}.\n\n" if partitions else ""
        parts.append(f"## {name}\n\n{partitioned}{_table(('column', 'type', 'meaning'), rows)}")
    return "\n".join(parts)


def error_codes() -> str:
    """The closed list of values of an `error` column."""
    return _table(("error", "meaning"), [(f"`{code}`", text) for code, text in ERRORS.items()])


def exit_codes() -> str:
    """The exit codes, with the exceptions that end a command with them."""
    raised: dict[int, list[str]] = {}
    for name, kind in inspect.getmembers(errors, inspect.isclass):
        if issubclass(kind, errors.MlprojectError) and kind is not errors.MlprojectError:
            raised.setdefault(kind.exit_code, []).append(f"{name}: {_first_line(kind)}")
    meanings = {
        0: "The command is done.",
        1: "MLflow, Spark or the machine failed (one line), or the code has a bug (a traceback). "
        "What was committed stays. Of `health`: the watch is not alive or not ready.",
        2: "Something that you named or set is wrong. One line says what to do.",
        3: "A check failed: nothing was registered, moved or changed.",
        STOPPED: "The command was stopped. What was committed stays.",
    }
    rows = [
        (f"`{code}`", meaning, "<br>".join(raised.get(code, [])))
        for code, meaning in meanings.items()
    ]
    if unknown := set(raised) - set(meanings):
        raise ValueError(f"exit codes {unknown} have no meaning here; add them to `exit_codes`")
    return _table(("exit code", "meaning", "exceptions"), rows)


def public_api() -> str:
    """Directives of mkdocstrings for the public functions, then the records that they return."""
    functions = {name: getattr(mlproject, name) for name in mlproject.__all__}
    records = public_records()
    return "\n".join(
        [
            *(
                f"## mlproject.{name}\n\n::: {found.__module__}.{found.__qualname__}\n"
                for name, found in functions.items()
            ),
            "## Results\n",
            *(_record(records[name]) for name in sorted(records)),
        ]
    )


def public_records() -> dict[str, type]:
    """The records that public functions return, and those in their fields, by name."""
    found: dict[str, type] = {}
    for name in mlproject.__all__:
        _add_records(inspect.signature(getattr(mlproject, name)).return_annotation, found)
    return found


def decisions() -> str:
    """The decisions, in order."""
    rows = [(f"[{title}](../decisions/{path.name})",) for path, title in decision_titles()]
    return _table(("decision",), rows)


def decision_titles() -> Iterator[tuple[Path, str]]:
    """Each decision's file and title."""
    for path in sorted(DECISIONS.glob("*.md")):
        yield path, path.read_text(encoding="utf-8").splitlines()[0].removeprefix("# ")


def layers() -> str:
    """The packages, top to bottom, with what each does."""
    level = import_graph.levels(import_graph.import_graph())
    names = sorted(level, key=lambda name: (-level[name], name))
    return _table(
        ("package", "what it does"),
        [(f"`{name}`", import_graph.summary(name)) for name in names],
    )


def drawing() -> str:
    """The drawing of the imports between packages."""
    return import_graph.svg(import_graph.import_graph())


def measurements() -> str:
    """The tables and charts that `benchmarks/score.py` has written; a line where there are none."""
    files = sorted(MEASUREMENTS.glob("score-*.md"))
    if not files:
        return "Nothing has been measured yet."
    return "\n".join(
        f'{file.read_text(encoding="utf-8")}\n<div class="chart">'
        f"{file.with_suffix('.svg').read_text(encoding='utf-8').strip()}</div>\n"
        for file in files
    )


PARTS = {
    "commands": commands,
    "command_list": command_list,
    "tables": tables,
    "error_codes": error_codes,
    "exit_codes": exit_codes,
    "public_api": public_api,
    "decisions": decisions,
    "layers": layers,
    "import_graph": drawing,
    "measurements": measurements,
}


def with_parts(markdown: str) -> str:
    """A page with the parts that it names in their places.

    Raises:
        KeyError: It names a part that there is not.
    """
    return re.sub(r"^\{\{ (\w+) \}\}$", lambda found: PARTS[found[1]](), markdown, flags=re.M)


def _add_records(annotation: typing.Any, found: dict[str, type]) -> None:
    """Adds the records that an annotation names, and those that their fields name."""
    for one in typing.get_args(annotation):
        _add_records(one, found)
    if dataclasses.is_dataclass(annotation) and annotation.__name__ not in found:
        found[annotation.__name__] = annotation
        for field in dataclasses.fields(annotation):
            _add_records(field.type, found)


def _record(kind: type) -> str:
    """A section of a frozen result: its fields with their types and docstrings."""
    body = ast.parse(inspect.getsource(kind)).body[0].body  # type: ignore[attr-defined]
    rows = [
        (f"`{field.target.id}`", f"`{ast.unparse(field.annotation)}`", text.value.value)
        for field, text in itertools.pairwise(body)
        if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr)
    ]
    columns = ("field", "type", "meaning")
    return f"### {kind.__name__}\n\n{_first_line(kind)}\n\n{_table(columns, rows)}"


def _command(name: str, given: dict[str, str | None]) -> str:
    text, meanings = command_help(name)
    parameters = [Parameter(one, default, meanings[one]) for one, default in given.items()]
    paragraphs = [_paragraph(one) for one in inspect.cleandoc(text).split("\n\n")]
    rows = [
        (f"`{one.name}`", "required" if one.default is None else _default(one.default), one.meaning)
        for one in parameters
    ]
    return (
        f"## {name}\n\n"
        + "\n\n".join(paragraphs)
        + "\n\n"
        + _table(("parameter", "default", "meaning"), rows)
    )


def _meaning(option: typing.Any) -> str:
    """The help of an option, with the choices that it does not name."""
    choices = [one for one in getattr(option.type, "choices", ()) if one not in option.help]
    return f"{option.help} One of {_codes(choices)}." if choices else option.help


def _paragraph(text: str) -> str:
    text = inspect.cleandoc(text)
    return f"```text\n{text}\n```" if text.startswith("mlflow run") else text


def _default(value: str) -> str:
    return f"`{value}`".replace(",", "`, `") if value else "empty"


def _first_paragraph(text: str) -> str:
    return " ".join(inspect.cleandoc(text).split("\n\n")[0].split())


def _first_line(kind: type) -> str:
    return (kind.__doc__ or "").splitlines()[0]


def _codes(words: Iterable[str]) -> str:
    return ", ".join(f"`{word}`" for word in words if word)


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    cells = ([" ".join(cell.split()).replace("|", "\\|") for cell in line] for line in lines)
    return "\n".join(f"| {' | '.join(line)} |" for line in cells) + "\n"
