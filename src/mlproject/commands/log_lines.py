"""Lines for a person or, with `log=json`, for a collector of logs: one JSON object a line."""

import json
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Literal

from mlproject.masking import mask

Format = Literal["text", "json"]
Level = Literal["info", "warning", "error"]

_format: list[Format] = ["text"]  # the last one counts


@contextmanager
def written_as(kind: Format) -> Iterator[None]:
    """Writes the lines of the block as text or as JSON, those of Python's logging too."""
    _format.append(kind)
    handler, root = _Handler(), logging.getLogger()
    if kind == "json":
        root.addHandler(handler)
        logging.captureWarnings(True)
    try:
        yield
    finally:
        if kind == "json":
            logging.captureWarnings(False)
            root.removeHandler(handler)
        _format.pop()


def is_json() -> bool:
    """Whether lines are JSON now."""
    return _format[-1] == "json"


def write(message: str, level: Level = "info", **fields: Any) -> None:
    """Writes a line at once, also into a pipe: to stdout, and a warning or an error to stderr.

    JSON has the `fields` beside `time` (ISO 8601 in UTC), `level` and `message`; text has not.
    """
    out = sys.stdout if level == "info" else sys.stderr
    print(line(message, level, **fields), file=out, flush=True)


def line(message: str, level: Level = "info", **fields: Any) -> str:
    """A line as `write` writes it."""
    if not is_json():
        return message
    now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    facts = {"time": now, "level": level, "message": mask(message), **fields}
    return json.dumps(facts, ensure_ascii=False, default=str)


class _Handler(logging.Handler):
    """Writes the records of Python's logging as JSON."""

    def emit(self, record: logging.LogRecord) -> None:
        level: Level = "info"
        if record.levelno >= logging.WARNING:
            level = "error" if record.levelno >= logging.ERROR else "warning"
        write(record.getMessage(), level, logger=record.name)
