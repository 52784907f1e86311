"""Lists the sources of a lake: what was ingested, with which settings, and what waits there.

mlflow run . -e sources --env-manager local

It reads the tables alone, without a tracking server or Spark, so it makes no MLflow run.
"""

from dataclasses import asdict
from datetime import datetime
from typing import Any

import mlproject
from mlproject.commands import console


def run(*, json: bool = False, **options: Any) -> None:
    """Prints a table of the sources.

    Args:
        json: true = JSON on stdout instead of a table.
    """
    found = mlproject.sources(**options)
    if json:
        console.print_json([asdict(one) for one in found])
        return
    rows = [
        (
            one.uri,
            f"{one.images:,}",
            "" if one.files is None else f"{one.files:,}",
            "" if one.backlog is None else f"{one.backlog:,}",
            _clock(one.listed_at) if one.listed_at else "not yet",
            "\n".join(f"{name}={value}" for name, value in one.settings.items()) or "defaults",
            _clock(one.since),
        )
        for one in found
    ]
    columns = ("source", "images ", "files ", "backlog ", "listed", "settings", "since (UTC)")
    console.print_table(columns, rows)


def _clock(at: datetime) -> str:
    return f"{at:%Y-%m-%d}\n{at:%H:%M:%S}"
