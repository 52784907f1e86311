"""Tells what the versions say about the images of a lake, as one HTML file.

mlflow run . -e report --env-manager local -P lake=lake -P out=report.html
"""

import argparse
import os
from pathlib import Path

import mlflow

from mlproject.errors import UserError
from mlproject.integrations import mlflow_tracking
from mlproject.integrations.local_files import write_whole
from mlproject.integrations.spark_session import session
from mlproject.lake import location
from mlproject.reporting import lake_report
from pipelines import command
from pipelines import parser as new_parser


def parser() -> argparse.ArgumentParser:
    """The arguments of `report`."""
    arguments = new_parser("report", __doc__)
    arguments.add_argument("--lake", default="lake", help="folder or URI of the tables")
    arguments.add_argument("--out", default="report.html", help="the HTML file to write")
    return arguments


def main(arguments: argparse.Namespace) -> None:
    """Writes one report, and logs it to the MLflow run."""
    mlflow_tracking.connect()
    out = _writable(arguments.out)
    with mlflow_tracking.run("report", vars(arguments)):
        lake = location.locate(arguments.lake)
        with session("mlproject report") as spark:
            facts = lake_report.collect(spark, lake)
        write_whole(out, lake_report.render(facts))
        mlflow.log_artifact(str(out))
        different = sum(found.different for found in facts.differences)
        mlflow.log_metrics(
            {
                "images": facts.images.distinct,
                "errors": facts.images.errors,
                "versions": len(facts.versions),
                "pointers": len(facts.readers),
                "different": different,
            }
        )
        for table, version in facts.table_versions.items():
            mlflow.set_tag(f"mlproject.{table}_version", version)
    print(
        f"{out}: {facts.images.distinct} images, {len(facts.versions)} versions, "
        f"{len(facts.readers)} pointers, {different} images with different answers"
    )


def _writable(name: str) -> Path:
    """The file to write; a place where none can be written is told before minutes of work."""
    out = Path(name).expanduser().resolve()
    reason = "it is a folder" if out.is_dir() else ""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = str(error.strerror)
    if reason or not os.access(out.parent if out.is_file() or not out.exists() else out, os.W_OK):
        raise UserError(
            f"Report {name!r} cannot be written ({reason or 'no permission'}). Name another file: "
            "-P out=report.html"
        )
    return out


if __name__ == "__main__":
    command(parser(), main)
