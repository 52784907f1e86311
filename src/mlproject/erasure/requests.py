"""Erasures as they are requested: by a path, a folder, the hash of the content, or a list."""

import os
import shlex
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import mlflow
from mlflow.entities import Run

from mlproject.erasure import removal, selection
from mlproject.erasure.removal import Erasure, ErasurePlan
from mlproject.errors import UserError
from mlproject.integrations import mlflow_tracking
from mlproject.integrations.spark_session import LazySession
from mlproject.lake import location

NAMING = ("path", "prefix", "image_id")  # parameters that identify erased images


def erase(
    *,
    path: str = "",
    prefix: str = "",
    image_id: str = "",
    file: str = "",
    lake: str = "lake",
    retention_hours: float = 0,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
    on_message: Callable[[str], None] = lambda message: None,
) -> Erasure:
    """Erases images: their rows, the data files that hold them, and they are not ingested again.

    One of path, prefix, image_id and file names them. All rows with the same bytes are erased,
    wherever those lie.

    Args:
        path: A path as in the column `path` of the table `images`.
        prefix: A folder: all paths below it.
        image_id: Sha256 of the content; several with commas between them.
        file: Text file with one path or image_id a line.
        lake: Folder or URI of the tables.
        retention_hours: Data files that were removed within these hours stay.
        on_progress: Called with the steps done so far, and all.
        on_message: Called with warnings, such as that MLflow has logged a path.

    Raises:
        UserError: There is no lake, or nothing in it matches.
    """
    logged = {"lake": lake, "plan": False, "retention_hours": retention_hours}
    mlflow_tracking.connect()
    with mlflow_tracking.run("erase", logged) as run:
        _report_logged(run, on_message)
        chosen = selection.selection(path=path, prefix=prefix, image_id=image_id, file=file)
        _existing(lake)
        tables = location.locate_to_write(lake)
        with closing(LazySession("mlproject erase", lake=tables)) as spark:
            done = removal.erase_images(
                tables, chosen, spark, retention_hours=retention_hours, on_step=on_progress
            )
        counts = {"contents": done.contents, "data_files": done.data_files}
        mlflow.log_metrics({**counts, "unknown": done.unknown, **done.rows})
    return done


def plan_erasure(
    *,
    path: str = "",
    prefix: str = "",
    image_id: str = "",
    file: str = "",
    lake: str = "lake",
    on_message: Callable[[str], None] = lambda message: None,
) -> ErasurePlan:
    """What `erase` would remove; nothing is written.

    Args:
        path: As in `erase`.
        prefix: As in `erase`.
        image_id: As in `erase`.
        file: As in `erase`.
        lake: As in `erase`.
        on_message: As in `erase`.

    Raises:
        UserError: There is no lake, or nothing in it matches.
    """
    mlflow_tracking.connect()
    with mlflow_tracking.run("erase", {"lake": lake, "plan": True}) as run:
        _report_logged(run, on_message)
        chosen = selection.selection(path=path, prefix=prefix, image_id=image_id, file=file)
        tables = _existing(lake)
        planned = removal.plan_erasure(tables, chosen)
        mlflow.log_metrics(
            {
                "contents": planned.contents,
                "images": planned.rows,
                "elsewhere": planned.elsewhere,
                "bytes": planned.size_bytes,
                "predictions": sum(planned.predictions.values()),
                "unknown": planned.unknown,
            }
        )
    return planned


def _existing(lake: str) -> str:
    tables = location.locate(lake)
    if location.is_local(tables) and not Path(tables).is_dir():
        raise UserError(f"There is no lake {tables!r}. Name one: -P lake=FOLDER")
    return tables


def _report_logged(run: Run, on_message: Callable[[str], None]) -> None:
    """`mlflow run` logs every -P before it starts us."""
    if any(run.data.params.get(name) for name in NAMING):
        on_message(
            "`mlflow run` has logged the named paths or image_ids as parameters of this run. "
            f"Remove the run: {removal_command(run.info.run_id)}\n"
            "With -P file=LIST only the name of the list is logged"
        )


def removal_command(run_id: str) -> str:
    """The shell command that removes a run from MLflow for good."""
    uri = os.environ["MLFLOW_TRACKING_URI"]
    # Another URI may hold a password, and is in the environment.
    is_shown = uri.startswith("sqlite") or "@" not in uri
    shown = shlex.quote(uri) if is_shown else '"$MLFLOW_TRACKING_URI"'
    delete = f"MLFLOW_TRACKING_URI={shown} mlflow runs delete --run-id {run_id}"
    remove = f"mlflow gc --run-ids {run_id} --tracking-uri {shown} --backend-store-uri"
    if uri.startswith("http"):
        return f"{delete}, and then, where the server's database is: {remove} DATABASE"
    return f"{delete} && {remove} {shown}"
