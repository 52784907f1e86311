"""Adds the new and changed image files of a folder to the table `images`.

mlflow run . -e ingest --env-manager local -P source=photos
"""

from typing import TYPE_CHECKING, Any

import mlproject
from mlproject.commands import console, log_lines

if TYPE_CHECKING:
    from mlproject.errors import MlprojectError
    from mlproject.ingestion.reconciliation import IngestResult

CHANGES = {
    "relabelled": "Gave {} images another label",
    "gone": "Marked {} files as gone",
    "cleaned": "Cleaned {} files from the source",
}


def run(*, log: log_lines.Format = "text", **options: Any) -> None:
    """Ingests once, or until it is stopped, or prints what an ingest would do.

    Args:
        log: Lines for a person, or one JSON object a line: text or json.
    """
    is_watch = options.get("mode") == "watch" and not options.get("plan")
    states: list[str] = []  # of the reconciliations with mode=watch

    def on_reconciled(result: "IngestResult") -> None:
        if result.changed or not states or states[-1] == "failed":
            print_result(result)
        states.append("done")

    def on_error(error: "MlprojectError") -> None:
        message = f"{error}; the next reconciliation is in {options['interval']:g} s"
        log_lines.write(message, "error")
        states.append("failed")

    with (
        console.logged(log, "ingest"),
        console.stopped_by_signals() as stopped,
        console.progress_of_bytes("ingest") as on_progress,
    ):
        result = mlproject.ingest(
            **options,
            stop=stopped.is_set,
            on_progress=on_progress,
            on_reconciled=on_reconciled,
            on_error=on_error,
        )
        if is_watch:
            log_lines.write(f"Stopped after {result.reconciliations} reconciliations")
            return
        if stopped.is_set():
            if result.changed:
                print_result(result)
            raise KeyboardInterrupt
        print_result(result)


def print_result(result: "IngestResult") -> None:
    """Prints what an ingest did, or would do."""
    fields: dict[str, Any] = {"lake": result.lake, "images_version": result.images_version}
    if result.ingested:
        done = result.ingested
        fields |= {"files": done.listed, "rows": done.rows, "errors": done.errors}
        fields |= {"bytes": done.size_bytes, "left": done.left}
    log_lines.write(summary(result), **fields)


def summary(result: "IngestResult") -> str:
    """What an ingest did, or would do, in sentences."""
    planned, done = result.planned, result.ingested
    if done is None:
        return (
            f"To read: {planned.new} new and {planned.changed} changed of {planned.listed} image "
            f"files, {planned.size_bytes / 1e6:.1f} MB.{_left(planned.left)} Nothing was written"
        )
    found = f"Nothing new among {done.listed} image files."
    if not done.listed:
        found = "No image files were found: check the options source and include."
    if done.rows:
        size = f"{done.size_bytes / 1e6:.1f} MB, {done.errors} with an error."
        found = f"Ingested {done.rows} of {done.listed} image files, {size}"
    version = f"{result.lake}/images version {result.images_version}"
    counts = ((text, getattr(result, name)) for name, text in CHANGES.items())
    changes = [text.format(count) for text, count in counts if count]
    return "\n".join([*changes, *result.messages, f"{found}{_left(done.left)} {version}"])


def _left(left: dict[str, int]) -> str:
    reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(left.items()))
    return f" Left: {reasons}." if reasons else ""
