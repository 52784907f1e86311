"""Adds the new and changed image files of a folder to the table `images`.

mlflow run . -e ingest --env-manager local -P source=photos
"""

import argparse
import time

import mlflow

from mlproject import images, sources, tables, tracking
from mlproject.session import session
from pipelines import command, progress, say_wait
from pipelines import parser as new_parser


def parser() -> argparse.ArgumentParser:
    """The arguments of `ingest`."""
    arguments = new_parser("ingest", __doc__)
    arguments.add_argument("--source", required=True, help="folder or URI of the image files")
    arguments.add_argument("--lake", default="lake", help="folder or URI of the tables")
    arguments.add_argument(
        "--include", default=sources.SUFFIXES, help="suffixes of image files in any case; * = all"
    )
    return arguments


def main(arguments: argparse.Namespace) -> None:
    """Ingests once."""
    tracking.connect()
    with tracking.run("ingest", vars(arguments)):
        lake = tables.locate_to_write(arguments.lake)
        sources.open_source(arguments.source)  # a wrong word is told before Spark starts
        with (
            session("mlproject ingest") as spark,
            tables.writing(lake, "ingest", on_wait=say_wait),
            progress("ingest") as on_wave,
        ):
            listed = sources.listing(arguments.source, arguments.include)
            began = time.monotonic()
            done = images.ingest(spark, lake, listed, on_wave=on_wave)
            seconds = time.monotonic() - began
        mlflow.set_tag("mlproject.images_version", done.table_version)
        mlflow.log_metrics(
            {
                "files": done.listed,
                "images": done.rows,
                "errors": done.errors,
                "bytes": done.size_bytes,
                "images_per_second": done.rows / seconds,
                **{f"left_{reason}": count for reason, count in done.left.items()},
            }
        )
    left = ", ".join(f"{count} {reason}" for reason, count in sorted(done.left.items()))
    aside = f" Left: {left}." if left else ""
    where = f"{lake}/images version {done.table_version}"
    if not done.rows:
        print(f"Nothing new among {done.listed} image files.{aside} {where}")
        return
    print(
        f"Ingested {done.rows} of {done.listed} image files, {done.size_bytes / 1e6:.1f} MB, "
        f"{done.errors} with an error.{aside} {where}"
    )


if __name__ == "__main__":
    command(parser(), main)
