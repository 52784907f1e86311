"""Adds the new and changed image files of a folder to the table `images`.

mlflow run . -e ingest --env-manager local -P source=photos
"""

import argparse
import sys
import threading
import time
from contextlib import closing

import mlflow
import pyarrow as pa

from mlproject.errors import UserError
from mlproject.ingestion import known_files, labels, new_images, source_cleaning, source_listing
from mlproject.integrations import mlflow_tracking, object_storage
from mlproject.integrations.spark_session import LazySession
from mlproject.lake import compaction, location, tables
from pipelines import (
    command,
    progress_of_bytes,
    say_wait,
    stopped_by_signals,
)
from pipelines import parser as new_parser

MOVES = {
    "relabelled": "Gave {} rows another label",
    "gone": "Marked {} files as gone",
    "cleaned": "Cleaned {} files from the source",
}

# Metrics beside one for each reason why a file was left.
SUMS = {
    "waiting": ("empty", "settling", "changing"),
    "skipped": ("skipped", "link", "name"),
}
LEAST = (
    *((1, name) for name in ("max_files", "max_bytes", "target_file_bytes")),
    *((0, name) for name in ("settle", "interval", "thumbnail_px", "clean_after")),
)


def parser() -> argparse.ArgumentParser:
    """The arguments of `ingest`."""
    arguments = new_parser("ingest", __doc__)
    add = arguments.add_argument
    default = new_images.Settings()
    add("--source", required=True, help="folder or URI of the image files")
    add("--lake", default="lake", help="folder or URI of the tables")
    add("--mode", default="once", choices=("once", "watch"), help="watch = until it is stopped")
    add("--interval", type=float, default=30, help="seconds between two looks of mode=watch")
    add("--plan", default="false", choices=("true", "false"), help="true = tell, write nothing")
    add(
        "--include",
        default=source_listing.SUFFIXES,
        help="suffixes of image files, any case; * = all",
    )
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
    mlflow_tracking.connect()
    # A wrong word is told before Spark starts, and credentials in it before it is logged.
    object_storage.open_source(arguments.source)
    with mlflow_tracking.run("ingest", vars(arguments)):
        for least, name in LEAST:
            if getattr(arguments, name) < least:
                raise UserError(f"{name}={getattr(arguments, name)} is below {least}")
        if arguments.clean_source != "keep" and arguments.on_missing == "mark":
            raise UserError("clean_source with on_missing=mark would mark what was cleaned as gone")
        if arguments.clean_source == "move":
            source_cleaning.check(
                arguments.source, location.locate(arguments.lake), arguments.clean_to
            )
        if not labels.is_table(arguments.labels):
            labels.pattern(arguments.labels)
        if arguments.plan == "true":
            _plan(arguments, location.locate(arguments.lake))
            return
        lake = location.locate_to_write(arguments.lake)
        with stopped_by_signals() as stopped, closing(LazySession("mlproject ingest")) as spark:
            if arguments.mode == "watch":
                _watch(spark, arguments, lake, stopped)
                return
            print(look(spark, arguments, lake, stopped)[1])
            if stopped.is_set():
                raise KeyboardInterrupt


def _plan(arguments: argparse.Namespace, lake: str) -> None:
    erased = arguments.include_erased == "true"
    planned = known_files.plan(lake, _listing(arguments), include_erased=erased)
    mlflow.log_metrics({**_counts(planned, planned.left), "bytes": planned.size_bytes})
    print(
        f"To read: {planned.new} new and {planned.changed} changed of {planned.listed} image "
        f"files, {planned.size_bytes / 1e6:.1f} MB.{_aside(planned.left)} Nothing was written"
    )


def _watch(
    spark: LazySession, arguments: argparse.Namespace, lake: str, stopped: threading.Event
) -> None:
    """Looks again and again, until it is stopped; what is being committed then is."""
    looks, trouble = 0, ""
    while not stopped.is_set():
        try:
            moved, words = look(spark, arguments, lake, stopped, step=looks)
        except UserError as error:  # such as a source that is away for a while
            if trouble != str(error):  # told once
                told = f"{error}; the next look is in {arguments.interval:g} s"
                print(told, file=sys.stderr, flush=True)
            trouble = str(error)
        else:
            if moved or trouble or not looks:
                print(words, flush=True)
            trouble = ""
        looks += 1
        stopped.wait(arguments.interval)
    print(f"Stopped after {looks} looks; what was committed stands")


def look(
    spark: LazySession,
    arguments: argparse.Namespace,
    lake: str,
    stopped: threading.Event,
    *,
    step: int = 0,
) -> tuple[bool, str]:
    """One ingest; whether anything changed, and what it came to in words."""
    writing = location.writing(lake, "ingest", on_wait=say_wait, stop=stopped.is_set)
    with writing, progress_of_bytes("ingest") as on_wave:
        listed = _listing(arguments)
        given = None
        if labels.is_table(arguments.labels):
            given = labels.given(arguments.labels, listed.root)
        erased = arguments.include_erased == "true"
        planned = known_files.plan(lake, listed, include_erased=erased)
        began = time.monotonic()
        if planned.new or planned.changed:
            done = new_images.ingest(
                spark(),
                lake,
                listed,
                _settings(arguments),
                given=given,
                on_wave=on_wave,
                stop=stopped.is_set,
            )
        else:
            done = new_images.nothing_new(lake, listed)
        seconds = time.monotonic() - began
        if done.left.keys() & {"gone", "unreadable"}:
            object_storage.require(
                listed.source
            )  # so look all files of a source that is gone itself
        relabelled = gone = cleaned = 0
        unmatched = doubt = why = ""
        if not stopped.is_set():
            relabelled, unmatched = _relabel(spark, lake, given)
            gone, doubt = _mark(arguments, lake, listed)
            cleaned, why = _clean(spark, arguments, lake, listed)
            _compact(spark, lake, arguments.target_file_bytes)
    version = tables.snapshot(lake, "images", "ingest").version
    moves = {"relabelled": relabelled, "gone": gone, "cleaned": cleaned}
    moved = bool(done.rows or any(moves.values()))
    if moved or not step:  # a watch that finds nothing leaves nothing
        mlflow.set_tag("mlproject.images_version", version)
        facts = {"images": done.rows, "errors": done.errors, "bytes": done.size_bytes}
        rate = {"images_per_second": done.rows / seconds}
        mlflow.log_metrics({**_counts(planned, done.left), **facts, **rate, **moves}, step=step)
    found = f"Nothing new among {done.listed} image files."
    if done.rows:
        size = f"{done.size_bytes / 1e6:.1f} MB, {done.errors} with an error."
        found = f"Ingested {done.rows} of {done.listed} image files, {size}"
    found = f"{found}{_aside(done.left)} {lake}/images version {version}"
    told = [MOVES[name].format(count) for name, count in moves.items() if count]
    return moved, "\n".join([*told, *(words for words in (unmatched, doubt, why) if words), found])


def _settings(arguments: argparse.Namespace) -> new_images.Settings:
    return new_images.Settings(
        content=arguments.content,
        max_inline_bytes=arguments.max_inline_bytes,
        thumbnail_px=arguments.thumbnail_px,
        max_files=arguments.max_files,
        max_bytes=arguments.max_bytes,
        include_erased=arguments.include_erased == "true",
    )


def _relabel(spark: LazySession, lake: str, given: pa.Table | None) -> tuple[int, str]:
    """Gives labels where that is wanted: how many rows got another, and what was of no row."""
    if given is None:
        return 0, ""
    count = labels.relabel(spark(), lake, given) if labels.changes(lake, given).num_rows else 0
    lost = labels.unmatched(lake, given)
    return count, f"{lost} of {given.num_rows} labels are of no image in the table" if lost else ""


def _mark(
    arguments: argparse.Namespace, lake: str, listed: source_listing.Listing
) -> tuple[int, str]:
    """Notes removed files where that is wanted: how many, or why none."""
    if arguments.on_missing == "keep":
        return 0, ""
    if not (listed.files.num_rows or listed.left.num_rows):
        return 0, "The source is empty, so no file is marked as gone: is it mounted?"
    return new_images.mark_missing(lake, listed), ""


def _compact(spark: LazySession, lake: str, target_bytes: int) -> None:
    """Puts small files together; not in S3, where it would need to be alone (decision 8)."""
    for path in (f"{lake}/images", f"{lake}/files") if location.is_local(lake) else ():
        if compaction.pays(path, target_bytes):
            compaction.compact(spark(), path, target_bytes)


def _clean(
    spark: LazySession, arguments: argparse.Namespace, lake: str, listed: source_listing.Listing
) -> tuple[int, str]:
    """Cleans the source where that is wanted: how many files went, and why not all."""
    if arguments.clean_source == "keep" or not listed.files.num_rows:
        return 0, ""
    files = source_cleaning.ready(spark(), lake, listed, arguments.clean_after).toArrow()
    cleaned, why = source_cleaning.clean(listed.source, files, arguments.clean_to)
    return cleaned, f"Some files could not be cleaned from the source, such as {why}" if why else ""


def _listing(arguments: argparse.Namespace) -> source_listing.Listing:
    listed = source_listing.listing(arguments.source, arguments.include, settle=arguments.settle)
    if labels.is_table(arguments.labels):
        return listed
    return labels.from_paths(listed, arguments.labels)


def _counts(planned: known_files.Planned, left: dict[str, int]) -> dict[str, int]:
    """What was found and what was left, as metrics."""
    facts = {"files": planned.listed, "new": planned.new, "changed": planned.changed}
    for name, reasons in SUMS.items():
        facts[name] = sum(left.get(reason, 0) for reason in reasons)
    return {**facts, **{f"left_{reason}": count for reason, count in left.items()}}


def _aside(left: dict[str, int]) -> str:
    words = ", ".join(f"{count} {reason}" for reason, count in sorted(left.items()))
    return f" Left: {words}." if words else ""


if __name__ == "__main__":
    command(parser(), main)
