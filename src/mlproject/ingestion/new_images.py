"""Image files to rows of the `images` table: list the source, subtract the table, read the rest."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import SparkSession

from mlproject.images import image_files
from mlproject.images.image_files import HELD_BYTES, Reading
from mlproject.ingestion import file_tasks
from mlproject.ingestion.known_files import ERASED, GONE, UNCHANGED, bounds, paths, pending
from mlproject.ingestion.source_listing import Listing
from mlproject.ingestion.sources import IngestSettings
from mlproject.lake import commits, snapshots
from mlproject.lake.queries import MissingFilesError, query
from mlproject.lake.schemas import SCHEMAS
from mlproject.storage.object_storage import missing_files

FEW = 100  # files that are worth reading twice for the sake of no empty commit
NONE = SCHEMAS["erased"].empty_table()
LARGE = 100_000_000  # bytes; files that are larger on average stay where they are


@dataclass(frozen=True, slots=True)
class BatchProgress:
    """The progress of an ingest."""

    files: int
    """Files whose rows are committed."""
    size_bytes: int
    """Their bytes."""
    all_files: int
    """Files to ingest."""
    all_bytes: int
    """Their bytes."""


@dataclass(frozen=True, slots=True)
class Ingested:
    """The result of one ingest: the rows it added and the files it left out."""

    listed: int
    """Image files in the source."""
    rows: int
    """Rows added."""
    errors: int
    """Rows added with an error: files that are no readable images."""
    size_bytes: int
    """Bytes of the files that were added."""
    left: dict[str, int]
    """Files that gave no row, by reason: as `Listing.left`, and `unchanged` (touched, with bytes
    that the table has), `erased` (with bytes that were erased), `changing` or
    `gone` since they were listed, `unreadable`."""
    table_version: int
    """The Delta version of `images` at the end."""


def ingest_pending(
    spark: SparkSession,
    lake: str,
    listed: Listing,
    settings: IngestSettings = IngestSettings(),  # noqa: B008 - frozen
    *,
    given: pa.Table | None = None,
    on_batch: Callable[[BatchProgress], None] = lambda progress: None,
    stop: Callable[[], bool] = lambda: False,
) -> Ingested:
    """Adds a row for each listed file that is new or overwritten, one micro-batch after the other.

    Labels that are given, as `label_tables.read` gives them, replace those of the listing.
    `on_batch` is called after each commit, and `stop` before each; once it returns true, what is
    pending is left for the next ingest.
    """
    since = snapshots.to_append(lake, "images", "ingest")
    rows = errors = size_bytes = 0
    lost = True
    while lost:
        lost = False
        counts = image_files.counts(spark)
        try:
            todo = pending(lake, listed, include_erased=settings.include_erased, at=since)
        except MissingFilesError:
            since, lost = snapshots.to_append(lake, "images", "ingest"), True
            continue
        reading = Reading(listed.source, _inline_bytes(settings, todo), settings.thumbnail_px)
        erased = NONE if settings.include_erased else _erased_contents(lake)
        fresh, doubtful = _fresh_and_doubtful(_with_erased_ids(todo, erased), settings)
        found = [fresh]
        for batch in _micro_batches(doubtful, settings):
            if stop():
                break
            new, same = _hash_doubtful(spark, batch, reading, counts)
            found.append(new)
            among = pc.is_in(same["image_id"], erased["image_id"])
            for state, is_noted in ((ERASED, among), (UNCHANGED, pc.invert(among))):
                noted = same.filter(is_noted)
                if noted.num_rows:
                    _append_states(lake, noted, state)
                    counts.add(Counter({state: noted.num_rows}))
        todo = pa.concat_tables(found)
        done = done_bytes = 0
        all_bytes = pc.sum(todo["size_bytes"]).as_py() or 0
        for batch in _micro_batches(todo, settings):
            if stop():
                break
            files = file_tasks.write_rows(spark, batch, reading, counts, since, given)
            committed = commits.append_files(files, since)
            if committed is None:
                lost = True
                since = snapshots.to_append(lake, "images", "ingest")
                break
            since = committed
            rows += sum(file.rows for file in files)
            errors += sum(sum(file.errors.values()) for file in files)
            size_bytes += sum(file.image_bytes for file in files)
            done += batch.num_rows
            done_bytes += pc.sum(batch["size_bytes"]).as_py()
            on_batch(BatchProgress(done, done_bytes, todo.num_rows, all_bytes))
    left = Counter(listed.left_counts()) + counts.value
    return Ingested(listed.files.num_rows, rows, errors, size_bytes, left, since.version)


def _inline_bytes(settings: IngestSettings, todo: pa.Table) -> int:
    if settings.content == "inline":
        return HELD_BYTES
    if settings.content == "reference" or (pc.mean(todo["size_bytes"]).as_py() or 0) > LARGE:
        return -1
    return settings.max_inline_bytes


def _micro_batches(todo: pa.Table, settings: IngestSettings) -> Iterator[pa.Table]:
    """Slices of at most `max_files` files and `max_bytes` bytes, one file at the least."""
    start = size = 0
    for end, file_bytes in enumerate(todo["size_bytes"].to_pylist()):
        full = end - start == settings.max_files or size + file_bytes > settings.max_bytes
        if end > start and full:
            yield todo.slice(start, end - start)
            start, size = end, 0
        size += file_bytes
    if todo.num_rows > start:
        yield todo.slice(start)


def _fresh_and_doubtful(todo: pa.Table, settings: IngestSettings) -> tuple[pa.Table, pa.Table]:
    """What to read into rows at once, and what to hash first.

    A micro-batch of nothing but touched and unreadable files would be an empty commit each time. So
    the files whose path the table knows, few as a rule, and any files when there are few, are read
    once more, before.
    """
    size = pc.sum(todo["size_bytes"]).as_py() or 0
    few = todo.num_rows <= FEW and size <= settings.max_bytes
    is_doubtful = pc.or_(todo["known"].is_valid(), few)
    return todo.filter(pc.invert(is_doubtful)), todo.filter(is_doubtful)


def _hash_doubtful(
    spark: SparkSession, doubtful: pa.Table, reading: Reading, counts: Any
) -> tuple[pa.Table, pa.Table]:
    """Hashes files, and separates those with new bytes from those with known or erased ones.

    Returns:
        What to read into rows; and the files of known bytes, with their `image_id`. What cannot be
        read now is in neither, and stays pending.
    """
    found = file_tasks.hash_files(spark, doubtful, replace(reading, thumbnail_px=0), counts)
    ids = [found.get(path) for path in doubtful["path"].to_pylist()]
    pairs = zip(ids, doubtful["known"].to_pylist(), strict=True)
    same = pa.array([image_id in (known or ()) for image_id, known in pairs], pa.bool_())
    hashed = doubtful.append_column("image_id", pa.array(ids, pa.string()))
    is_new = pc.and_not(hashed["image_id"].is_valid(), same)
    return doubtful.filter(is_new), hashed.filter(same)


def _erased_contents(lake: str) -> pa.Table:
    """image_id and size_bytes (null = unknown) of erased contents that must not be added again.

    Without those that `images` has again, as with `include_erased`.
    """
    return query(
        lake,
        "SELECT image_id, size_bytes FROM erased "
        "LEFT ANTI JOIN images ON erased.image_id = images.image_id",
        ["erased", "images"],
    )


def _with_erased_ids(todo: pa.Table, erased: pa.Table) -> pa.Table:
    """The files with the erased image_ids of their size added to `known`.

    So an ingest hashes such a file before it adds it, and no other.
    """
    if not erased.num_rows:
        return todo
    ids: dict[int | None, list[str]] = {}
    for row in erased.to_pylist():
        ids.setdefault(row["size_bytes"], []).append(row["image_id"])
    pairs = zip(todo["known"].to_pylist(), todo["size_bytes"].to_pylist(), strict=True)
    known = [
        [*(of_path or ()), *ids.get(size, ()), *ids.get(None, ())] or None
        for of_path, size in pairs
    ]
    column = todo.schema.get_field_index("known")
    return todo.set_column(column, "known", pa.array(known, pa.list_(pa.string())))


def mark_missing(lake: str, listed: Listing) -> int:
    """Records in `files` the ingested files that are no longer in a source; returns how many.

    A file that the listing left out for another reason, such as its suffix, is there.
    """
    known = paths(lake, *bounds(listed.root))
    there = pc.is_in(known["path"], listed.files["path"])
    doubtful = known.filter(pc.invert(pc.or_(there, pc.equal(known["state"], GONE))))
    candidates = doubtful.select(["path", "image_id"])
    missing = missing_files(listed.source, candidates["path"].to_pylist())
    gone = candidates.filter(pa.array(missing, pa.bool_()))
    if gone.num_rows:
        for name in ("size_bytes", "modified_at"):
            gone = gone.append_column(name, pa.nulls(gone.num_rows))
        _append_states(lake, gone, GONE)
    return int(gone.num_rows)


def _append_states(lake: str, files: pa.Table, state: str) -> None:
    """Appends the state of files to the table `files`."""
    rows = files.append_column("state", pa.repeat(state, files.num_rows))
    rows = rows.append_column("at", pa.repeat(datetime.now(UTC), files.num_rows))
    while True:
        # This snapshot first: an erasure notes its images in `erased` before it fences `files`.
        since = snapshots.to_append(lake, "files", "ingest")
        kept = rows
        if state != ERASED:
            erased = _erased_contents(lake)["image_id"]
            kept = rows.filter(pc.invert(pc.is_in(rows["image_id"], erased)))
        if commits.append_rows(kept, since):
            return
