"""Adds the new and changed image files of a folder to the table `images`.

mlflow run . -e ingest --env-manager local -P source=photos
"""

import argparse
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import mlflow
from pyspark.sql import SparkSession

from mlproject import cleaning, images, ingesting, labels, layout, sources, tables, tracking
from mlproject.errors import UserError
from mlproject.session import session
from pipelines import command, progress_of_bytes, say_wait
from pipelines import parser as new_parser

LEAST = (
    *((1, name) for name in ("max_files", "max_bytes", "target_file_bytes")),
    *((0, name) for name in ("settle", "interval", "thumbnail_px", "clean_after")),
)


def parser() -> argparse.ArgumentParser:
    """The arguments of `ingest`."""
    arguments = new_parser("ingest", __doc__)
    add = arguments.add_argument
    default = ingesting.Settings()
    add("--source", required=True, help="folder or URI of the image files")
    add("--lake", default="lake", help="folder or URI of the tables")
    add("--mode", default="once", choices=("once", "watch"), help="watch = until it is stopped")
    add("--interval", type=float, default=30, help="seconds between two looks of mode=watch")
    add("--plan", default="false", choices=("true", "false"), help="true = tell, write nothing")
    add("--include", default=sources.SUFFIXES, help="suffixes of image files, any case; * = all")
    add("--settle", type=float, default=2, help="seconds a file must lie unmodified to be taken")
    add("--labels", default=labels.FOLDER, help="folder, a pattern with a group, or a CSV file")
    add(
        "--content",
        default=default.content,
        choices=("inline", "reference", "auto"),
        help="whose bytes come into the table: all files', none's, or those of small files",
    )
    add("--max_inline_bytes", type=int, default=default.max_inline_bytes, help="for content=auto")
    add("--thumbnail_px", type=int, default=default.thumbnail_px, help="side; 0 = no thumbnails")
    add("--max_files", type=int, default=default.max_files, help="files a commit")
    add("--max_bytes", type=int, default=default.max_bytes, help="bytes a commit")
    add("--target_file_bytes", type=int, default=256 * 1024**2, help="bytes of a table's file")
    add("--on_missing", default="keep", choices=("keep", "mark"), help="what to note of gone files")
    add(
        "--clean_source",
        default="keep",
        choices=("keep", "move", "delete"),
        help="what to do with files whose bytes are in the table",
    )
    add("--include_erased", default="false", choices=("true", "false"), help="take erased again")
    add("--clean_to", default="", help="folder outside the source, for clean_source=move")
    add("--clean_after", type=float, default=30, help="days in the table before a file is cleaned")
    return arguments


def main(arguments: argparse.Namespace) -> None:
    """Ingests once, or until it is stopped, or tells what an ingest would do."""
    tracking.connect()
    # A wrong word is told before Spark starts, and credentials in it before it is logged.
    sources.open_source(arguments.source)
    with tracking.run("ingest", vars(arguments)):
        for least, name in LEAST:
            if getattr(arguments, name) < least:
                raise UserError(f"{name}={getattr(arguments, name)} is below {least}")
        if arguments.clean_source != "keep" and arguments.on_missing == "mark":
            raise UserError("clean_source with on_missing=mark would mark what was cleaned as gone")
        if arguments.clean_source == "move":
            cleaning.check(arguments.source, tables.locate(arguments.lake), arguments.clean_to)
        if not labels.is_table(arguments.labels):
            labels.pattern(arguments.labels)
        if arguments.plan == "true":
            with session("mlproject ingest") as spark:
                _plan(spark, arguments, tables.locate(arguments.lake))
            return
        lake = tables.locate_to_write(arguments.lake)
        with session("mlproject ingest") as spark:
            if arguments.mode == "watch":
                _watch(spark, arguments, lake)
            else:
                print(_look(spark, arguments, lake, threading.Event())[1])


def _plan(spark: SparkSession, arguments: argparse.Namespace, lake: str) -> None:
    erased = arguments.include_erased == "true"
    planned = images.plan(spark, lake, _listing(arguments), include_erased=erased)
    facts = {"new": planned.new, "changed": planned.changed, "bytes": planned.size_bytes}
    mlflow.log_metrics({"files": planned.listed, **facts, **_counts(planned.left)})
    print(
        f"To read: {planned.new} new and {planned.changed} changed of {planned.listed} image "
        f"files, {planned.size_bytes / 1e6:.1f} MB.{_aside(planned.left)} Nothing was written"
    )


def _watch(spark: SparkSession, arguments: argparse.Namespace, lake: str) -> None:
    """Looks again and again, until SIGTERM or Ctrl-C; what is being committed then is."""
    looks = 0
    with _stopped_by_signals() as stopped:
        while not stopped.is_set():
            try:
                moved, words = _look(spark, arguments, lake, stopped, step=looks)
            except UserError as error:  # such as a source that is away for a while
                print(f"{error}; the next look is in {arguments.interval:g} s", file=sys.stderr)
            else:
                if moved or not looks:
                    print(words, flush=True)
            looks += 1
            stopped.wait(arguments.interval)
    print(f"Stopped after {looks} looks; what was committed stands")


@contextmanager
def _stopped_by_signals() -> Iterator[threading.Event]:
    """An event that SIGTERM and SIGINT set, in place of what they did."""
    stopped = threading.Event()
    signals = (signal.SIGTERM, signal.SIGINT)
    before = [signal.signal(number, lambda *_: stopped.set()) for number in signals]
    try:
        yield stopped
    finally:
        for number, handler in zip(signals, before, strict=True):
            signal.signal(number, handler)


def _look(
    spark: SparkSession,
    arguments: argparse.Namespace,
    lake: str,
    stopped: threading.Event,
    *,
    step: int = 0,
) -> tuple[bool, str]:
    """One ingest; whether anything changed, and what it came to in words."""
    settings = ingesting.Settings(
        content=arguments.content,
        max_inline_bytes=arguments.max_inline_bytes,
        thumbnail_px=arguments.thumbnail_px,
        max_files=arguments.max_files,
        max_bytes=arguments.max_bytes,
        include_erased=arguments.include_erased == "true",
    )
    told = []
    writing = tables.writing(lake, "ingest", on_wait=say_wait, stop=stopped.is_set)
    with writing, progress_of_bytes("ingest") as on_wave:
        listed = _listing(arguments)
        given = None
        if labels.is_table(arguments.labels):
            given = labels.given(spark, arguments.labels, listed.root)
        began = time.monotonic()
        done = ingesting.ingest(
            spark, lake, listed, settings, given=given, on_wave=on_wave, stop=stopped.is_set
        )
        seconds = time.monotonic() - began
        if done.left.keys() & {"gone", "unreadable"}:
            sources.require(listed.source)  # so look all files of a source that is gone itself
        if given is not None and (relabelled := labels.relabel(spark, lake, given)):
            told.append(f"Gave {relabelled} rows another label")
        if done.rows:
            layout.compact(spark, f"{lake}/images", arguments.target_file_bytes)
        gone = _mark(spark, arguments, lake, listed, told)
        if gone or done.left.keys() & {"unchanged", "erased"}:
            layout.compact(spark, f"{lake}/files", arguments.target_file_bytes)
        cleaned = _clean(spark, arguments, lake, listed, told)
    moved = bool(told or done.rows)
    version = tables.snapshot(spark, lake, "images").version
    if moved or not step:  # a watch that finds nothing leaves nothing
        mlflow.set_tag("mlproject.images_version", version)
        facts = {"images": done.rows, "errors": done.errors, "bytes": done.size_bytes}
        rate = {"images_per_second": done.rows / seconds}
        others = {"files": done.listed, "gone": gone, "cleaned": cleaned, **_counts(done.left)}
        mlflow.log_metrics({**facts, **rate, **others}, step=step)
    where = f"{lake}/images version {version}"
    if done.rows:
        told.append(
            f"Ingested {done.rows} of {done.listed} image files, {done.size_bytes / 1e6:.1f} MB, "
            f"{done.errors} with an error.{_aside(done.left)} {where}"
        )
    else:
        told.append(f"Nothing new among {done.listed} image files.{_aside(done.left)} {where}")
    return moved, "\n".join(told)


def _mark(
    spark: SparkSession,
    arguments: argparse.Namespace,
    lake: str,
    listed: sources.Listing,
    told: list[str],
) -> int:
    """Notes removed files where that is wanted; gives back how many, and tells of it."""
    if arguments.on_missing == "keep":
        return 0
    if not (listed.files.num_rows or listed.left.num_rows):
        told.append("The source is empty, so no file is marked as gone: is it mounted?")
        return 0
    gone = ingesting.mark_missing(spark, lake, listed)
    if gone:
        told.append(f"Marked {gone} files as gone")
    return gone


def _clean(
    spark: SparkSession,
    arguments: argparse.Namespace,
    lake: str,
    listed: sources.Listing,
    told: list[str],
) -> int:
    """Cleans the source where that is wanted; gives back how many files went, and tells of it."""
    if arguments.clean_source == "keep":
        return 0
    files = cleaning.ready(spark, lake, listed, arguments.clean_after).toArrow()
    cleaned, why = cleaning.clean(listed.source, files, arguments.clean_to)
    if cleaned:
        told.append(f"Cleaned {cleaned} files from the source ({arguments.clean_source})")
    if why:
        told.append(f"Some files could not be cleaned from the source, such as {why}")
    return cleaned


def _listing(arguments: argparse.Namespace) -> sources.Listing:
    listed = sources.listing(arguments.source, arguments.include, settle=arguments.settle)
    if labels.is_table(arguments.labels):
        return listed
    return labels.from_paths(listed, arguments.labels)


def _counts(left: dict[str, int]) -> dict[str, int]:
    return {f"left_{reason}": count for reason, count in left.items()}


def _aside(left: dict[str, int]) -> str:
    words = ", ".join(f"{count} {reason}" for reason, count in sorted(left.items()))
    return f" Left: {words}." if words else ""


if __name__ == "__main__":
    command(parser(), main)
