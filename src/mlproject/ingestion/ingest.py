"""Ingest: the image files of a source minus the table `images`, read and appended."""

import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import fields, replace
from functools import partial
from typing import Literal

from mlproject.errors import MachineError, MlprojectError, UserError, require_at_least
from mlproject.ingestion import labels as image_labels
from mlproject.ingestion import reconciliation, sources
from mlproject.ingestion.known_files import Planned
from mlproject.ingestion.new_images import BatchProgress
from mlproject.ingestion.reconciliation import IngestResult, reconcile
from mlproject.ingestion.sources import IngestSettings
from mlproject.integrations import mlflow_tracking
from mlproject.integrations.spark_session import LazySession
from mlproject.lake.location import locate, locate_to_write
from mlproject.storage import object_storage

_DEFAULT = IngestSettings()


def ingest(
    source: str,
    *,
    lake: str = "lake",
    include: str | None = None,
    exclude: str | None = None,
    settle: float | None = None,
    mode: Literal["once", "watch"] = "once",
    interval: float = 30,
    plan: bool = False,
    labels: str | None = None,
    content: Literal["inline", "reference", "auto"] | None = None,
    max_inline_bytes: int | None = None,
    thumbnail_px: int | None = None,
    max_files: int | None = None,
    max_bytes: int | None = None,
    target_file_bytes: int | None = None,
    on_missing: Literal["keep", "mark"] | None = None,
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

    A source keeps its settings: one that is not given is that of its last ingest that gave it, else
    the default.

    Args:
        source: Folder or URI (s3, gs, abfss) of the image files.
        lake: Folder or URI of the tables.
        include: Suffixes of image files, or patterns such as *.jpg and raw/**, comma-separated, in
            any case; * takes every file. Default:
            avif,bmp,dib,gif,heic,heif,ico,jfif,jp2,jpe,jpeg,jpg,png,ppm,tif,tiff,webp
        exclude: Suffixes or patterns of files that are left; none = none are. Default: none
        settle: Seconds that a file must lie unmodified before it is taken. Default: 2
        mode: once, or watch = reconcile every `interval` seconds until it is stopped.
        interval: Seconds between two reconciliations of mode=watch.
        plan: True only finds what would be ingested, and writes nothing.
        labels: folder = the name of a file's folder; a regular expression with a group, for the
            path below the source; or a CSV file or Delta table with the columns label and path
            (or image_id). Default: folder
        content: Whose bytes come into the table: inline = all files', reference = none's, auto =
            those of small files. Default: inline
        max_inline_bytes: Bytes of a small file, for content=auto. Default: 33554432
        thumbnail_px: Side of the thumbnails in pixels; 0 = none. Default: 0
        max_files: Files in one commit. Default: 10000
        max_bytes: Bytes in one commit. Default: 1073741824
        target_file_bytes: Bytes of a data file when small ones are put together. Default: 268435456
        on_missing: Ingested files that are gone: keep = their rows stay as they are, mark = they
            are marked as gone. Default: keep
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
    given = {name: parameters[name] for name in names if parameters[name] is not None}
    if labels is not None:
        given["labels"] = image_labels.absolute(labels)
    mlflow_tracking.connect()
    # Credentials in a source must be refused before the run records it.
    object_storage.open_source(source)
    with (
        mlflow_tracking.run("ingest", parameters),
        closing(LazySession("mlproject ingest", lake=lake)) as spark,
    ):
        require_at_least(0, interval=interval)
        sources.settled(locate(lake), source, given)
        if plan:
            return reconciliation.plan(locate(lake), source, given)
        located = locate_to_write(lake)
        once = partial(reconcile, spark, located, source, stop=stop, on_progress=on_progress)
        if mode == "once":
            return once(given, required=True)
        result = IngestResult(located, Planned(0, 0, 0, 0, {}))
        step, message = 0, ""
        while not stop():
            try:
                result = once(given, step=step)
                on_reconciled(result)
                message = ""
                # Else this ingest would take back what another one names later.
                given = {name: given[name] for name in given.keys() - {*sources.KEPT}}
            except (UserError, MachineError) as error:
                if message != str(error):
                    on_error(error)
                message = str(error)
            step += 1
            until = time.monotonic() + interval
            while not stop() and time.monotonic() < until:
                time.sleep(min(0.2, interval))
        return replace(result, reconciliations=step)
