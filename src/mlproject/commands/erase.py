"""Erases images: their rows, the data files that hold them, and they are not ingested again.

One of path, prefix, image_id and file names them. All rows with the same bytes are erased,
wherever those lie; `plan=true` shows first what that is.

mlflow run . -e erase --env-manager local -P file=erase.txt -P plan=true
"""

from typing import Any

import mlproject
from mlproject.commands import console


def run(*, plan: bool = False, **options: Any) -> None:
    """Erases, or prints what an erasure would remove.

    Args:
        plan: true = print what would be erased, and write nothing.
    """
    if plan:
        del options["retention_hours"]
        _print_plan(mlproject.plan_erasure(**options, on_message=console.print_message))
        return
    with console.progress("erase") as [on_progress]:
        done = mlproject.erase(**options, on_progress=on_progress, on_message=console.print_message)
    if any(done.rows.values()):
        rows = ", ".join(f"{count} of {name}" for name, count in sorted(done.rows.items()))
        print(f"Erased {done.contents} images: deleted {rows} and {done.data_files} data files")
    else:
        print(f"No row was left to delete; removed {done.data_files} data files of deleted rows")
    if done.unknown:
        print(_unknown(done.unknown))
    if hours := options["retention_hours"]:
        print(
            f"Data files deleted within {hours:g} hours stay, with the bytes of erased images. "
            "Run the same command again then"
        )
    if done.data_files:
        print(
            "Older versions of the tables can no longer be read, and a query that reads one now "
            "may fail"
        )
    print("Reports and MLflow runs made before still hold thumbnails and paths: delete those too")


def _print_plan(planned: Any) -> None:
    versions = ", ".join(f"{name}: {count}" for name, count in planned.predictions.items())
    print(
        f"To erase: {planned.contents} images in {planned.rows} rows of table images, "
        f"{planned.size_bytes / 1e6:.1f} MB, {planned.elsewhere} of the rows at other paths than "
        f"those named, and {sum(planned.predictions.values())} predictions"
        f"{f' ({versions})' if versions else ''}. "
        f"{_unknown(planned.unknown) + ' ' if planned.unknown else ''}Nothing was written"
    )
    for path in planned.examples:
        print(f"  {path}")
    if planned.rows > len(planned.examples):
        print(f"  and {planned.rows - len(planned.examples)} more")


def _unknown(count: int) -> str:
    return f"Not in any table: {count} of the named paths and image_ids."
