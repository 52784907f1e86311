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
    arguments.add_argument(
        "--settle", type=float, default=2, help="seconds a file must lie unmodified to be taken"
    )
    arguments.add_argument(
        "--plan", default="false", choices=("true", "false"), help="true = tell only, write nothing"
    )
    arguments.add_argument(
        "--on_missing", default="keep", choices=("keep", "mark"), help="what to note of gone files"
    )
    return arguments


def main(arguments: argparse.Namespace) -> None:
    """Ingests once, or tells what an ingest would do."""
    tracking.connect()
    with tracking.run("ingest", vars(arguments)):
        sources.open_source(arguments.source)  # a wrong word is told before Spark starts
        if arguments.plan == "true":
            _plan(arguments, tables.locate(arguments.lake))
        else:
            _ingest(arguments, tables.locate_to_write(arguments.lake))


def _plan(arguments: argparse.Namespace, lake: str) -> None:
    with session("mlproject ingest") as spark:
        planned = images.plan(spark, lake, _listing(arguments))
    facts = {"new": planned.new, "changed": planned.changed, "bytes": planned.size_bytes}
    mlflow.log_metrics({"files": planned.listed, **facts, **_counts(planned.left)})
    print(
        f"To read: {planned.new} new and {planned.changed} changed of {planned.listed} image "
        f"files, {planned.size_bytes / 1e6:.1f} MB.{_aside(planned.left)} Nothing was written"
    )


def _ingest(arguments: argparse.Namespace, lake: str) -> None:
    with (
        session("mlproject ingest") as spark,
        tables.writing(lake, "ingest", on_wait=say_wait),
        progress("ingest") as [on_wave],
    ):
        listed = _listing(arguments)
        began = time.monotonic()
        done = images.ingest(spark, lake, listed, on_wave=on_wave)
        seconds = time.monotonic() - began
        gone = images.mark_missing(spark, lake, listed) if arguments.on_missing == "mark" else 0
    mlflow.set_tag("mlproject.images_version", done.table_version)
    mlflow.log_metrics(
        {
            "files": done.listed,
            "images": done.rows,
            "errors": done.errors,
            "bytes": done.size_bytes,
            "images_per_second": done.rows / seconds,
            "gone": gone,
            **_counts(done.left),
        }
    )
    where = f"{lake}/images version {done.table_version}"
    if gone:
        print(f"Marked {gone} files as gone")
    if not done.rows:
        print(f"Nothing new among {done.listed} image files.{_aside(done.left)} {where}")
        return
    print(
        f"Ingested {done.rows} of {done.listed} image files, {done.size_bytes / 1e6:.1f} MB, "
        f"{done.errors} with an error.{_aside(done.left)} {where}"
    )


def _listing(arguments: argparse.Namespace) -> sources.Listing:
    return sources.listing(arguments.source, arguments.include, settle=arguments.settle)


def _counts(left: dict[str, int]) -> dict[str, int]:
    return {f"left_{reason}": count for reason, count in left.items()}


def _aside(left: dict[str, int]) -> str:
    words = ", ".join(f"{count} {reason}" for reason, count in sorted(left.items()))
    return f" Left: {words}." if words else ""


if __name__ == "__main__":
    command(parser(), main)
