"""One reconciliation of a source: pending files become rows; labels, states and clean-up follow."""

import contextlib
import json
import os
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from types import MappingProxyType
from typing import Any

import mlflow
import pyarrow as pa

from mlproject.errors import UserError
from mlproject.ingestion import (
    known_files,
    label_tables,
    labels,
    new_images,
    source_cleaning,
    source_listing,
    sources,
)
from mlproject.ingestion.new_images import BatchProgress, Ingested
from mlproject.ingestion.source_listing import Listing
from mlproject.ingestion.sources import IngestSettings
from mlproject.integrations import mlflow_tracking
from mlproject.integrations.spark_session import LazySession
from mlproject.lake import maintenance, snapshots
from mlproject.lake.location import is_local
from mlproject.storage import object_storage

NOTHING: Mapping[str, Any] = MappingProxyType({})
ALWAYS = contextlib.nullcontext(True)  # a lease that nobody else can hold
# Metrics that sum reasons why files were left, beside a metric for each reason.
_SUMS = {
    "waiting": ("empty", "settling", "changing"),
    "skipped": ("skipped", "link", "name", "system", "output"),
}
WHY_LEFT = {  # as `Listing.left` has the reasons
    "skipped": "it is hidden, no regular file, or the options leave it",
    "system": "a system or program has left it behind",
    "output": "it is of a Delta table or of MLflow",
    "link": "a link that leaves the source, forms a loop or leads nowhere",
    "name": "its name cannot be used",
    "unreadable": "a folder that cannot be listed",
    "gone": "it vanished while the source was listed",
}


@dataclass(frozen=True, slots=True)
class IngestResult:
    """The result of one ingest."""

    lake: str
    """Where the lake lies."""
    planned: known_files.Planned
    """What was pending when it began."""
    ingested: Ingested | None = None
    """What was added; None with `plan`, which writes nothing."""
    relabelled: int = 0
    """Images that got another label."""
    gone: int = 0
    """Files that were marked as gone."""
    cleaned: int = 0
    """Files that were taken away from the source."""
    messages: tuple[str, ...] = ()
    """Warnings and hints, a sentence each."""
    reconciliations: int = 0
    """How often the source was listed: more than once with `mode=watch`."""
    images_version: int = -1
    """The Delta version of `images` at the end; -1 = there is no table yet."""
    are_settings_new: bool = False
    """Whether the source got settings, or others."""

    @property
    def changed(self) -> bool:
        """Whether anything changed in the lake or the source."""
        rows = self.ingested.rows if self.ingested else 0
        counts = rows, self.relabelled, self.gone, self.cleaned
        return any(counts) or self.are_settings_new


def reconcile(
    spark: LazySession,
    lake: str,
    source: str,
    given: Mapping[str, Any] = NOTHING,
    *,
    step: int = 0,
    stop: Callable[[], bool] = lambda: False,
    on_progress: Callable[[BatchProgress], None] = lambda progress: None,
    lease: AbstractContextManager[bool] = ALWAYS,
    required: bool = False,
) -> IngestResult:
    """Ingests what is pending once; logs it to the active MLflow run.

    The settings are those `given`, which the source keeps from then on, else those that it keeps.
    Spark is started when there is something to read. `step` counts the reconciliations of the same
    run before this one. `lease` is entered when files are pending; they are left where it gives
    False. With `required` a source of which no file is taken is an error.

    Raises:
        UserError: The source, or a setting, cannot be used; or no file in it can be read.
    """
    settings, kept = sources.settled(lake, source, given)
    listed, table = _listing(lake, source, settings), None
    if required:
        _require_files(lake, listed, settings)
    if labels.is_table(settings.labels):
        table = label_tables.read(settings.labels, listed, lake)
    are_new, messages = sources.keep(lake, listed.root, given, kept)
    planned = known_files.plan(lake, listed, include_erased=settings.include_erased)
    began, is_pending = time.monotonic(), planned.new or planned.changed
    with lease if is_pending else ALWAYS as is_ours:
        if is_pending and is_ours:
            done = new_images.ingest_pending(
                spark(), lake, listed, settings, given=table, on_batch=on_progress, stop=stop
            )
        else:
            version = snapshots.to_append(lake, "images", "ingest").version
            done = Ingested(listed.files.num_rows, 0, 0, 0, listed.left_counts(), version)
        seconds = time.monotonic() - began
        if done.left.keys() & {"gone", "unreadable"}:
            # If the source is gone, each of its files seems gone.
            object_storage.require(listed.source)
        if done.left.get("unreadable", 0) >= planned.new == done.listed > 0:
            raise unreadable(listed)
        result = IngestResult(
            *(lake, planned, done),
            messages=messages,
            reconciliations=step + 1,
            are_settings_new=are_new,
        )
        if is_ours and not stop():
            result = _finish(spark, result, settings, listed, table)
    known = done.rows + sum(done.left.get(state, 0) for state in ("unchanged", "erased"))
    backlog = max(0, planned.new + planned.changed - known)
    sources.note_listing(lake, listed.root, done.listed, backlog, kept, changed=result.changed)
    result = replace(result, images_version=snapshots.required(lake, "images").version)
    if result.changed or not step:  # a watch that finds nothing logs nothing
        mlflow.set_tag("mlproject.images_version", result.images_version)
        mlflow.set_tag("mlproject.ingest_settings", json.dumps(asdict(settings)))
        metrics = {
            **_counts(planned, done.left),
            "images": done.rows,
            "errors": done.errors,
            "bytes": done.size_bytes,
            "images_per_second": done.rows / seconds,
            "relabelled": result.relabelled,
            "gone": result.gone,
            "cleaned": result.cleaned,
        }
        mlflow.log_metrics(metrics, step=step)
    return result


def _finish(
    spark: LazySession,
    result: IngestResult,
    settings: IngestSettings,
    listed: Listing,
    given: pa.Table | None,
) -> IngestResult:
    """Labels of older images, states of files that are gone, clean-up, compaction."""
    lake, messages = result.lake, list(result.messages)
    relabelled = gone = cleaned = 0
    if given is not None:
        relabelled = labels.append_labels(lake, given, settings.labels)
        messages.append(label_tables.unmatched(lake, given))
    if settings.on_missing == "mark":
        if listed.files.num_rows or listed.left.num_rows:
            gone = new_images.mark_missing(lake, listed)
        else:
            messages.append("The source is empty, so no file is marked as gone: is it mounted?")
    if settings.clean_source != "keep" and listed.files.num_rows:
        ready = source_cleaning.ready(spark(), lake, listed, settings.clean_after).toArrow()
        cleaned, why = source_cleaning.clean(listed.source, ready, settings.clean_to)
        if why:
            messages.append(f"Some files could not be cleaned from the source, such as {why}")
    for table in ("images", "files", "labels", "sources"):
        maintenance.compact_small(f"{lake}/{table}", settings.target_file_bytes, spark)
    return replace(
        result,
        relabelled=relabelled,
        gone=gone,
        cleaned=cleaned,
        messages=tuple(message for message in messages if message),
    )


def plan(lake: str, source: str, given: Mapping[str, Any] = NOTHING) -> IngestResult:
    """What an ingest would find now; logs it to the active MLflow run, and writes nothing else."""
    settings, _ = sources.settled(lake, source, given)
    listed = _listing(lake, source, settings)
    _require_files(lake, listed, settings)
    planned = known_files.plan(lake, listed, include_erased=settings.include_erased)
    mlflow.log_metrics({**_counts(planned, planned.left), "bytes": planned.size_bytes})
    newest = snapshots.newest(lake, "images")
    return IngestResult(lake, planned, images_version=newest.version if newest else -1)


def _listing(lake: str, source: str, settings: IngestSettings) -> Listing:
    """The image files that lie in a source now, with their labels."""
    outputs = {lake, *mlflow_tracking.local_files()}
    if is_local(lake):
        outputs.add(os.path.realpath(lake))
    listed = source_listing.listing(
        *(source, settings.include),
        exclude=settings.exclude,
        settle=settings.settle,
        outputs=outputs,
    )
    return labels.from_paths(listed, settings.labels)


def _require_files(lake: str, listed: Listing, settings: IngestSettings) -> None:
    """Raises UserError where no file of a source is taken, nor ever was, though there are some."""
    counts = listed.left_counts()
    is_waiting = counts.keys() & {"empty", "settling"}
    if listed.files.num_rows or is_waiting or not counts:
        return
    if sources.count_images(lake, listed.root):
        return
    found = ", ".join(f"{count} {reason}" for reason, count in sorted(counts.items()))
    raise UserError(
        f"No file of {listed.root} is taken ({found}), for example "
        f"{listed.left['path'][0].as_py()}: {WHY_LEFT[listed.left['reason'][0].as_py()]}. The "
        f"options are include={settings.include} and exclude={settings.exclude}"
    )


def unreadable(listed: Listing) -> UserError:
    """The error that no file of a source can be read, with the reason for one."""
    path = listed.files["path"][0].as_py()
    try:
        for _ in object_storage.reader(listed.source)(path):
            break
        why = "this process can read it. Give the executors of Spark the same access"
    except OSError as error:
        is_remote = "://" in listed.source
        why = object_storage.advice(listed.source, error) if is_remote else str(error)
    return UserError(
        f"None of {listed.files.num_rows} image files can be read, for example {path}: {why}"
    )


def _counts(planned: known_files.Planned, left: dict[str, int]) -> dict[str, int]:
    """Files found and files left, as metrics."""
    facts = {"files": planned.listed, "new": planned.new, "changed": planned.changed}
    for name, reasons in _SUMS.items():
        facts[name] = sum(left.get(reason, 0) for reason in reasons)
    return {**facts, **{f"left_{reason}": count for reason, count in left.items()}}
