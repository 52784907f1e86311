"""Ingest: the image files of a source minus the table `images`, read and appended."""

import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import fields, replace
from functools import partial
from typing import Literal
from urllib.parse import parse_qsl

from mlproject.errors import MachineError, MlprojectError, UserError, require_at_least
from mlproject.ingestion import labels as image_labels
from mlproject.ingestion import reconciliation, source_cleaning
from mlproject.ingestion.known_files import Planned
from mlproject.ingestion.new_images import BatchProgress, IngestSettings
from mlproject.ingestion.reconciliation import IngestResult, reconcile
from mlproject.integrations import mlflow_tracking
from mlproject.integrations.spark_session import LazySession
from mlproject.lake.location import locate, locate_to_write
from mlproject.storage import object_storage

_DEFAULT = IngestSettings()


def ingest(
    source: str,
    *,
    lake: str = "lake",
    include: str = _DEFAULT.include,
    settle: float = _DEFAULT.settle,
    mode: Literal["once", "watch"] = "once",
    interval: float = 30,
    plan: bool = False,
    labels: str = _DEFAULT.labels,
    content: Literal["inline", "reference", "auto"] = _DEFAULT.content,
    max_inline_bytes: int = _DEFAULT.max_inline_bytes,
    thumbnail_px: int = _DEFAULT.thumbnail_px,
    max_files: int = _DEFAULT.max_files,
    max_bytes: int = _DEFAULT.max_bytes,
    target_file_bytes: int = _DEFAULT.target_file_bytes,
    on_missing: Literal["keep", "mark"] = _DEFAULT.on_missing,
    clean_source: Literal["keep", "move", "delete"] = _DEFAULT.clean_source,
    clean_to: str = _DEFAULT.clean_to,
    clean_after: float = _DEFAULT.clean_after,
    include_erased: bool = _DEFAULT.include_erased,
    stop: Callable[[], bool] = lambda: False,
    on_progress: Callable[[BatchProgress], None] = lambda progress: None,
    on_reconciled: Callable[[IngestResult], None] = lambda result: None,
    on_error: Callable[[MlprojectError], None] = lambda error: None,
) -> IngestResult:
    """Adds the new and changed image files of a source to the table `images`.

    Args:
        source: Folder or URI (s3, gs, abfss) of the image files.
        lake: Folder or URI of the tables.
        include: Suffixes of image files, comma-separated, in any case; * takes every file.
        settle: Seconds that a file must lie unmodified before it is taken.
        mode: once, or watch = reconcile every `interval` seconds until it is stopped.
        interval: Seconds between two reconciliations of mode=watch.
        plan: True only finds what would be ingested, and writes nothing.
        labels: folder = the name of a file's folder; a regular expression with a group, for the
            path below the source; or a CSV file or Delta table with the columns label and path
            (or image_id).
        content: Whose bytes come into the table: inline = all files', reference = none's, auto =
            those of small files.
        max_inline_bytes: Bytes of a small file, for content=auto.
        thumbnail_px: Side of the thumbnails in pixels; 0 = none.
        max_files: Files in one commit.
        max_bytes: Bytes in one commit.
        target_file_bytes: Bytes of a data file when small ones are put together.
        on_missing: Ingested files that are gone: keep = their rows stay as they are, mark = they
            are marked as gone.
        clean_source: What happens to files whose bytes are in the table: keep, move or delete.
        clean_to: Folder outside the source, for clean_source=move.
        clean_after: Days that a file's bytes must be in the table before it is cleaned.
        include_erased: True takes contents again that were erased.
        stop: Called regularly; once true, the ingest ends after the current commit.
        on_progress: Called after each commit.
        on_reconciled: Called after each reconciliation of mode=watch.
        on_error: Called with the error of a failed reconciliation of mode=watch, once.

    Returns:
        What it found and did; with mode=watch the last reconciliation.

    Raises:
        UserError: The source, the lake or an option is wrong.
        MachineError: The lake cannot be written now. In mode=watch such errors go to `on_error`.
    """
    parameters = dict(locals())
    names = [field.name for field in fields(IngestSettings)]
    settings = IngestSettings(**{name: parameters[name] for name in names})
    mlflow_tracking.connect()
    # Credentials in a source must be refused before the run records it.
    object_storage.open_source(source)
    with (
        mlflow_tracking.run("ingest", parameters),
        closing(LazySession("mlproject ingest", lake=lake)) as spark,
    ):
        require_at_least(
            1, max_files=max_files, max_bytes=max_bytes, target_file_bytes=target_file_bytes
        )
        require_at_least(
            0, settle=settle, interval=interval, thumbnail_px=thumbnail_px, clean_after=clean_after
        )
        _check_options(source, settings, locate(lake))
        if plan:
            return reconciliation.plan(locate(lake), source, settings)
        located = locate_to_write(lake)
        once = partial(
            reconcile, spark, located, source, settings, stop=stop, on_progress=on_progress
        )
        if mode == "once":
            return once()
        result = IngestResult(located, Planned(0, 0, 0, 0, {}))
        step, message = 0, ""
        while not stop():
            try:
                result = once(step=step)
                on_reconciled(result)
                message = ""
            except (UserError, MachineError) as error:
                if message != str(error):
                    on_error(error)
                message = str(error)
            step += 1
            until = time.monotonic() + interval
            while not stop() and time.monotonic() < until:
                time.sleep(min(0.2, interval))
        return replace(result, reconciliations=step)


def _check_options(source: str, settings: IngestSettings, lake: str) -> None:
    """Raises UserError for options that contradict each other, and for wrong labels."""
    if settings.clean_source != "keep" and settings.on_missing == "mark":
        raise UserError(
            f"clean_source={settings.clean_source} and on_missing=mark do not go together: cleaned "
            "files would be marked as gone. Use on_missing=keep"
        )
    if settings.content != "inline" and _has_own_settings(source):
        raise UserError(
            f"content={settings.content}: such rows are read again at their paths, which have no "
            "settings. Set them in the environment, as AWS_ENDPOINT_URL, AWS_REGION, "
            "AWS_SKIP_SIGNATURE or AWS_REQUEST_PAYER, and not after the ? of the source"
        )
    if settings.clean_source != "keep":
        source_cleaning.check(source, lake, settings.clean_source, settings.clean_to)
    image_labels.pattern(settings.labels)


def _has_own_settings(source: str) -> bool:
    """Whether a source in S3 has other settings behind its "?" than the environment."""
    bare, _, settings = source.partition("?")
    if not (settings and object_storage.is_s3(source)):
        return False
    given = object_storage.with_server(source)
    region = dict(parse_qsl(given.partition("?")[2]))["region"]  # Amazon is not asked for it
    return given != object_storage.with_server(f"{bare}?region={region}")
