"""Puts small data files of the tables together, removes old files, and writes checkpoints.

It may run at any time, beside every other command; `plan=true` shows what it would do.

mlflow run . -e maintain --env-manager local -P plan=true
"""

from typing import Any

import mlproject
from mlproject.commands import console


def run(**options: Any) -> None:
    """Maintains the tables and prints what that did."""
    with console.progress("maintain") as [on_progress]:
        done = mlproject.maintain(**options, on_progress=on_progress)
    columns = ("table", "files ", "compacted ", "statistics repaired ", "removed ", "MB removed ")
    rows = [
        (
            one.table,
            one.files,
            one.files_compacted,
            one.files_mended,
            one.files_removed,
            f"{one.bytes_removed / 1e6:,.1f}",
        )
        for one in done.tables
    ]
    console.print_table(columns, rows)
    if done.planned:
        print("Nothing was written")
