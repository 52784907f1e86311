"""Generated parts of the docs hold all that the code has, and README agrees with them."""

import dataclasses
import re

import import_graph
import pytest
import reference

from mlproject.inference.errors import ERRORS
from tests.support.examples import PAGES, PROJECT

README = (PROJECT / "README.md").read_text(encoding="utf-8")
VERDICT = r'Verdict\(\s*"(\w+)"'


def first_cells(table: str) -> list[str]:
    return re.findall(r"^\| `?(\w+)`? \|", table, re.MULTILINE)


def test_the_readme_names_every_command_once_and_in_order():
    commands = README.split("## Commands")[1].split("## ")[0]
    assert list(reference.entry_points()) == first_cells(commands)[1:]


def test_the_readme_is_short():
    assert len(README.splitlines()) <= 150


def test_every_parameter_of_a_command_has_a_meaning():
    for name, parameters in reference.entry_points().items():
        text, meanings = reference.command_help(name)
        assert text
        assert [] == [one for one in parameters if not meanings.get(one)], name


def test_every_error_code_is_listed():
    assert list(ERRORS) == first_cells(reference.error_codes())[1:]


def test_every_column_has_a_meaning():
    for name, columns in reference.COLUMNS.items():
        assert [] == [column for column, (_, meaning) in columns.items() if not meaning], name


def test_every_field_of_a_public_record_has_a_meaning():
    for record in reference.public_records().values():
        section = reference._record(record)
        fields = [field.name for field in dataclasses.fields(record)]
        assert fields == first_cells(section)[1:], record


def test_every_exit_code_of_an_exception_has_a_meaning():
    table = reference.exit_codes()
    for code in ("`0`", "`1`", "`2`", "`3`", "`130`"):
        assert f"| {code} |" in table


def test_packages_that_the_architecture_names_exist():
    page = (PROJECT / "docs" / "explanation" / "architecture.md").read_text(encoding="utf-8")
    cells = re.findall(r"^\| [^|]+ \| ([^|]+) \|$", page.split("## Where to find")[1], re.MULTILINE)
    named = {name for cell in cells for name in re.findall(r"(?:^|; )`(\w+)`", cell)}
    assert named
    assert set() == named - set(import_graph.import_graph())


@pytest.mark.parametrize("page", (*PAGES, PROJECT / "CONTRIBUTING.md"), ids=lambda page: page.name)
def test_files_that_a_page_names_exist(page):
    named = re.findall(
        r"\b(?:tests|src/mlproject|models|pipelines)/\w+(?:/\w+)*(?:\.py)?", page.read_text()
    )
    missing = [name for name in named if "NAME" not in name and not (PROJECT / name).exists()]
    assert [] == missing


def test_the_guide_names_every_gate():
    code = (PROJECT / "src" / "mlproject" / "gates").glob("*.py")
    gates = {name for file in code for name in re.findall(VERDICT, file.read_text("utf-8"))}
    guide = (PROJECT / "docs" / "how-to" / "promote.md").read_text(encoding="utf-8")
    table = guide.split("## The gates")[1].split("\n\n")[1]
    assert gates
    assert set() == gates - set(re.findall(r"`(\w+)`", table))


def test_a_page_that_names_an_unknown_part_is_refused():
    with pytest.raises(KeyError):
        reference.with_parts("{{ nothing }}")
