"""Adds the new and changed image files of a folder to the table `images`.

mlflow run . -e ingest --env-manager local -P source=photos
"""

import argparse
import sys
from typing import Any

from mlproject.errors import UserError
from mlproject.ingestion import labels, new_images, source_listing
from mlproject.ingestion.ingest import ingest
from mlproject.ingestion.reconciliation import IngestResult
from pipelines import command, progress_of_bytes, stopped_by_signals
from pipelines import parser as new_parser

MOVES = {
    "relabelled": "Gave {} images another label",
    "gone": "Marked {} files as gone",
    "cleaned": "Cleaned {} files from the source",
}


def parser() -> argparse.ArgumentParser:
    """The arguments of `ingest`."""
    arguments = new_parser("ingest", __doc__)
    add = arguments.add_argument
    default = new_images.RowSettings()
    add("--source", required=True, help="folder or URI of the image files")
    add("--lake", default="lake", help="folder or URI of the tables")
    add("--mode", default="once", choices=("once", "watch"), help="watch = until it is stopped")
    add("--interval", type=float, default=30, help="seconds between two reconciliations")
    add("--plan", default="false", choices=("true", "false"), help="true = tell, write nothing")
    add("--include", default=source_listing.SUFFIXES, help="suffixes of image files; * = all")
    add("--settle", type=float, default=2, help="seconds a file must lie unmodified to be taken")
    add("--labels", default=labels.FOLDER, help="folder, a pattern with a group, or a CSV file")
    content = ("inline", "reference", "auto")
    add("--content", default=default.content, choices=content, help="whose bytes come in")
    add("--max_inline_bytes", type=int, default=default.max_inline_bytes, help="for content=auto")
    add("--thumbnail_px", type=int, default=default.thumbnail_px, help="side; 0 = no thumbnails")
    add("--max_files", type=int, default=default.max_files, help="files a commit")
    add("--max_bytes", type=int, default=default.max_bytes, help="bytes a commit")
    add("--target_file_bytes", type=int, default=256 * 1024**2, help="bytes of a table's file")
    add("--on_missing", default="keep", choices=("keep", "mark"), help="what to note of gone files")
    cleaned = ("keep", "move", "delete")
    add("--clean_source", default="keep", choices=cleaned, help="what happens to ingested files")
    add("--include_erased", default="false", choices=("true", "false"), help="take erased again")
    add("--clean_to", default="", help="folder outside the source, for clean_source=move")
    add("--clean_after", type=float, default=30, help="days in the table before a file is cleaned")
    return arguments


def main(arguments: argparse.Namespace) -> None:
    """Ingests once, or until it is stopped, or tells what an ingest would do."""
    options: dict[str, Any] = dict(vars(arguments))
    for name in ("plan", "include_erased"):
        options[name] = options[name] == "true"
    printed: list[str] = []

    def on_reconciled(result: IngestResult) -> None:
        if result.changed or not printed or printed[-1] == "error":
            print(words(result), flush=True)
        printed.append("done")

    def on_error(error: UserError) -> None:
        later = f"{error}; the next reconciliation is in {arguments.interval:g} s"
        print(later, file=sys.stderr, flush=True)
        printed.append("error")

    with stopped_by_signals() as stopped, progress_of_bytes("ingest") as on_progress:
        result = ingest(
            options.pop("source"),
            **options,
            stop=stopped.is_set,
            on_progress=on_progress,
            on_reconciled=on_reconciled,
            on_error=on_error,
        )
        if arguments.mode == "watch" and not options["plan"]:
            print(f"Stopped after {result.reconciliations} reconciliations")
            return
        print(words(result))
        if stopped.is_set():
            raise KeyboardInterrupt


def words(result: IngestResult) -> str:
    """What an ingest did, in sentences."""
    planned, done = result.planned, result.ingested
    if done is None:
        return (
            f"To read: {planned.new} new and {planned.changed} changed of {planned.listed} image "
            f"files, {planned.size_bytes / 1e6:.1f} MB.{_aside(planned.left)} Nothing was written"
        )
    found = f"Nothing new among {done.listed} image files."
    if done.rows:
        size = f"{done.size_bytes / 1e6:.1f} MB, {done.errors} with an error."
        found = f"Ingested {done.rows} of {done.listed} image files, {size}"
    version = f"{result.lake}/images version {result.images_version}"
    moves = [
        text.format(getattr(result, name)) for name, text in MOVES.items() if getattr(result, name)
    ]
    return "\n".join([*moves, *result.messages, f"{found}{_aside(done.left)} {version}"])


def _aside(left: dict[str, int]) -> str:
    words = ", ".join(f"{count} {reason}" for reason, count in sorted(left.items()))
    return f" Left: {words}." if words else ""


if __name__ == "__main__":
    command(parser(), main)
