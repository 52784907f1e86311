"""Erases images: their rows, the files that hold them, and the way back in.

One of path, prefix, image_id and file says which. All rows with the same bytes go, wherever those
lie; `plan=true` shows first what that is.

mlflow run . -e erase --env-manager local -P file=erase.txt -P plan=true
"""

import argparse
import os
import shlex
from pathlib import Path

import mlflow
from mlflow.entities import Run

from mlproject.erasure import erase
from mlproject.errors import UserError
from mlproject.integrations import mlflow_tracking
from mlproject.integrations.spark_session import session
from mlproject.lake import location
from pipelines import command, progress, say_wait
from pipelines import parser as new_parser


def parser() -> argparse.ArgumentParser:
    """The arguments of `erase`."""
    arguments = new_parser("erase", __doc__)
    arguments.add_argument("--path", default="", help="a path as in the column `path` of images")
    arguments.add_argument("--prefix", default="", help="a folder: all paths below it")
    arguments.add_argument(
        "--image_id", default="", help="sha256 of the content; several comma-separated"
    )
    arguments.add_argument(
        "--file", default="", help="a text file with a path or an image_id a line"
    )
    arguments.add_argument("--lake", default="lake", help="folder or URI of the tables")
    arguments.add_argument(
        "--plan", default="false", choices=("true", "false"), help="true = tell only, write nothing"
    )
    arguments.add_argument(
        "--retention_hours", type=float, default=0, help="files deleted within these hours stay"
    )
    return arguments


def main(arguments: argparse.Namespace) -> None:
    """Erases once, or tells what an erase would remove."""
    mlflow_tracking.connect()
    logged = ("lake", "plan", "retention_hours")  # and never what is to be forgotten
    with mlflow_tracking.run("erase", {name: getattr(arguments, name) for name in logged}) as run:
        _say_logged(run)
        chosen = erase.selection(
            path=arguments.path,
            prefix=arguments.prefix,
            image_id=arguments.image_id,
            file=arguments.file,
        )
        lake = location.locate(arguments.lake)
        if location.is_local(lake) and not Path(lake).is_dir():
            raise UserError(f"There is no lake {lake!r}. Name one: -P lake=FOLDER")
        if arguments.plan == "true":
            _plan(lake, chosen)
        else:
            _erase(arguments, chosen)


def _say_logged(run: Run) -> None:
    """`mlflow run` logs every -P before it starts us."""
    if any(run.data.params.get(name) for name in ("path", "prefix", "image_id")):
        print(
            "`mlflow run` has logged what you named as a parameter of this run. Remove that: "
            f"{forgetting(run.info.run_id)}\n"
            "With -P file=LIST only the list's name is logged"
        )


def forgetting(run_id: str) -> str:
    """The commands that take a run out of MLflow for good."""
    uri = os.environ["MLFLOW_TRACKING_URI"]
    # Another's may hold a password, and was named in the environment.
    is_shown = uri.startswith("sqlite") or "@" not in uri
    shown = shlex.quote(uri) if is_shown else '"$MLFLOW_TRACKING_URI"'
    delete = f"MLFLOW_TRACKING_URI={shown} mlflow runs delete --run-id {run_id}"
    remove = f"mlflow gc --run-ids {run_id} --tracking-uri {shown} --backend-store-uri"
    if uri.startswith("http"):
        return f"{delete}, and then, where the server's database is: {remove} DATABASE"
    return f"{delete} && {remove} {shown}"


def _plan(lake: str, chosen: erase.Selection) -> None:
    with session("mlproject erase") as spark:
        planned = erase.plan(spark, lake, chosen)
    predictions = sum(planned.predictions.values())
    mlflow.log_metrics(
        {
            "contents": planned.contents,
            "images": planned.rows,
            "elsewhere": planned.elsewhere,
            "bytes": planned.size_bytes,
            "predictions": predictions,
            "unknown": planned.unknown,
        }
    )
    versions = ", ".join(f"{name}: {count}" for name, count in planned.predictions.items())
    print(
        f"To erase: {planned.contents} contents in {planned.rows} rows of images, "
        f"{planned.size_bytes / 1e6:.1f} MB, {planned.elsewhere} of the rows at paths that you did "
        f"not name, and {predictions} predictions{f' ({versions})' if versions else ''}."
        f"{_aside(planned.unknown)} Nothing was written"
    )
    for path in planned.examples:
        print(f"  {path}")
    if planned.rows > len(planned.examples):
        print(f"  and {planned.rows - len(planned.examples)} more")


def _erase(arguments: argparse.Namespace, chosen: erase.Selection) -> None:
    lake = location.locate_to_write(arguments.lake)
    hours = arguments.retention_hours
    if not location.is_local(lake):
        print("Nothing else may write this lake meanwhile: VACUUM would take it for left over")
    with (
        session("mlproject erase") as spark,
        location.writing(lake, "erase", on_wait=say_wait),
        progress("erase") as [on_step],
    ):
        done = erase.erase(spark, lake, chosen, retention_hours=hours, on_step=on_step)
    mlflow.log_metrics(
        {
            "contents": done.contents,
            **done.rows,
            "data_files": done.data_files,
            "unknown": done.unknown,
        }
    )
    if any(done.rows.values()):
        rows = ", ".join(f"{count} of {name}" for name, count in sorted(done.rows.items()))
        print(f"Erased {done.contents} contents: deleted {rows} and {done.data_files} data files")
    else:
        print(f"No row was left to delete; removed {done.data_files} data files of deleted rows")
    if done.unknown:
        print(_aside(done.unknown).strip())
    if hours:
        print(
            f"Data files deleted within {hours:g} hours stay, with the bytes of erased images. "
            "Run the same command again after that"
        )
    if done.data_files:
        print(
            "Older versions of the tables can no longer be read, and a reader that has one open "
            "may fail"
        )
    print(
        "Reports and MLflow runs from before are as they were, with the small pictures and paths "
        "in them"
    )


def _aside(unknown: int) -> str:
    return f" Not known to the lake: {unknown} of what you named." if unknown else ""


if __name__ == "__main__":
    command(parser(), main)
