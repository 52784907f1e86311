"""Files of labels: one a line, CSV or JSON, in the order of the network's outputs."""

import csv
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mlproject.errors import UserError, first_line

_HOW = "Write one label a line in the order of the outputs, or CSV or JSON with indices 0 to N-1."

# Words in the header of a CSV file, in small letters.
_INDICES = ("index", "class_index", "idx", "class_id", "label_id", "id")
_NAMES = ("label", "name", "class", "class_name", "label_name", "category")
_SHOWN = 4  # renamed labels, at most


def read(path: str) -> list[str]:
    """The labels in a file.

    Raises:
        UserError: The file cannot be read, or its indices are not 0 to N-1, each once.
    """
    try:
        text = Path(path).expanduser().read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"Labels {path!r} cannot be read ({first_line(error)}). Name a UTF-8 file with one "
            "label a line: -P labels=FILE"
        ) from error
    try:
        return parse(text, is_csv=path.endswith((".csv", ".tsv")))
    except (ValueError, csv.Error) as error:
        raise UserError(f"Labels {path!r} cannot be used: {error}. {_HOW}") from error


def parse(text: str, *, is_csv: bool = False) -> list[str]:
    """The labels in a text, in the order of the outputs.

    JSON is a list of names, `{index: name}`, `{index: [id, name]}` as Keras has it, or
    `{name: index}`. CSV has the delimiter tab, `;` or `,`, and a column of indices or a header.
    All else is one label a line; with `is_csv` the first line may be a header.

    Raises:
        ValueError: The text is none of these, as a clause.
    """
    text = text.rstrip()
    if text.lstrip().startswith(("[", "{")):
        try:
            content = json.loads(text)
        except json.JSONDecodeError as error:
            if text.lstrip().startswith(("{", '["')):  # else a line that starts with a bracket
                raise ValueError(f"the JSON is damaged: {error}") from error
        else:
            return _checked(_of_json(content))
    lines = [line.strip() for line in text.splitlines()]
    if is_csv and lines and lines[0].lower() in _NAMES:
        lines = lines[1:]
    labels = _of_table(lines)
    if is_csv and not labels:
        rows = list(csv.reader(filter(None, lines)))
        labels = [row[0] for row in rows] if all(len(row) == 1 for row in rows) else []
    return _checked(labels or lines)


def unique(labels: Sequence[str]) -> tuple[list[str], str]:
    """The labels, repeated ones with their index as "crane (134)"; and a sentence that says so."""
    counts = Counter(labels)
    found = [f"{label} ({n})" if counts[label] > 1 else label for n, label in enumerate(labels)]
    renamed = [new for new, label in zip(found, labels, strict=True) if new != label]
    if not renamed:
        return found, ""
    more = f" and {len(renamed) - _SHOWN} more" if len(renamed) > _SHOWN else ""
    shown = ", ".join(map(repr, renamed[:_SHOWN]))
    return found, f"Repeated labels have their output index: {shown}{more}"


def _checked(labels: Sequence[str]) -> list[str]:
    for number, label in enumerate(labels):
        if not label.strip():
            raise ValueError(f"label {number} is empty")
    if not labels:
        raise ValueError("it is empty")
    return list(labels)


def _of_json(content: Any) -> list[str]:
    if isinstance(content, list) and all(isinstance(label, str) for label in content):
        return content
    if isinstance(content, Mapping):
        by_index = {index: _name(name) for index, name in content.items()}
        indexed = all(map(_is_index, content)) and all(by_index.values())
        named = all(type(index) is int for index in content.values())
        if indexed:
            return _in_order([(int(index), name) for index, name in by_index.items()])
        if named and not any(map(_is_index, content)):
            return _in_order([(index, name) for name, index in content.items()])
    raise ValueError("the JSON is not a list of names, {index: name} or {name: index}")


def _name(value: Any) -> str:
    """A name, or the last of an entry as `["n01440764", "tench"]`; "" = neither."""
    last = value[-1] if isinstance(value, list) and value else value
    return last if isinstance(last, str) else ""


def _of_table(lines: Sequence[str]) -> list[str]:
    """The labels of a CSV file by their indices or under their header; none = it is no table."""
    for delimiter in ("\t", ";", ","):
        table = csv.reader(filter(None, lines), delimiter=delimiter, skipinitialspace=True)
        rows = [[cell.strip() for cell in row] for row in table]
        lengths = {len(row) for row in rows}
        if len(lengths) > 1 and any(_are_indices(rows[1:], end) for end in (0, -1)):
            raise ValueError(
                "its rows have different numbers of columns, so quote labels that contain "
                f"{delimiter!r}"
            )
        found = _of_columns(rows) if len(lengths) == 1 and lengths != {1} else []
        if found:
            return found
    return []


def _of_columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """The labels in rows of equal length; none = there are neither indices nor a known header."""
    header = [cell.lower() for cell in rows[0]]
    numbers = [n for n in range(len(header)) if _are_indices(rows[1:] or rows, n)]
    has_header = not all(_are_indices(rows[:1], n) for n in numbers)
    index = _column(numbers, header, _INDICES)
    name = _column([n for n in range(len(header)) if n not in numbers], header, _NAMES)
    if not numbers:
        return [] if name is None else [row[name] for row in rows[1:]]
    if name is None or index is None:
        raise ValueError("no header says which column is 'index', and which 'label'")
    return _in_order([(int(row[index]), row[name]) for row in rows[has_header:]])


def _column(numbers: Sequence[int], header: Sequence[str], words: Sequence[str]) -> int | None:
    """The only column, or the one with the first of these words in its header."""
    if len(numbers) == 1:
        return numbers[0]
    return next((n for word in words for n in numbers if header[n] == word), None)


def _are_indices(rows: Sequence[Sequence[str]], column: int) -> bool:
    return all(_is_index(row[column]) for row in rows)


def _is_index(text: str) -> bool:
    return text.isascii() and text.isdecimal()


def _in_order(pairs: Sequence[tuple[int, str]]) -> list[str]:
    """Names by index.

    Raises:
        ValueError: An index is missing or occurs twice.
    """
    by_index = dict(pairs)
    count = len(pairs)
    missing = [index for index in range(count) if index not in by_index]
    if missing:
        raise ValueError(
            f"its {count} labels have no index {missing[0]}, as one is repeated or too large"
        )
    return [by_index[index] for index in range(count)]
