"""Image files to rows of the `images` table: list the source, subtract the table, read the rest."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame, Observation, SparkSession
from pyspark.sql import functions as F

from mlproject import image_files, tables
from mlproject.sources import Listing, missing_files

WAVE_FILES = 10_000  # files a commit: tens of seconds of work on two cores
WAVE_BYTES = 1024**3  # bytes a commit
UNCHANGED, GONE = "unchanged", "gone"  # states in `files`
FEW = 100  # files that are worth reading twice for the sake of no empty commit


@dataclass(frozen=True, slots=True)
class Ingested:
    """What one ingest added and what it left."""

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
    that the table has), `changing` or `gone` since they were listed, `unreadable`."""
    table_version: int
    """The Delta version of `images` at the end."""


def paths(images: DataFrame, files: DataFrame) -> DataFrame:
    """What is known of each path: path, known (its image_ids), image_id and state (its last).

    Args:
        images: The `images` table.
        files: The `files` table.
    """
    ingested = images.select("path", "image_id", F.lit("ingested").alias("state"), "ingested_at")
    seen = files.select("path", "image_id", "state", "at")
    return (
        ingested.withColumnRenamed("ingested_at", "at")
        .unionByName(seen)
        .groupBy("path")
        .agg(
            F.collect_set("image_id").alias("known"),
            F.max_by("image_id", "at").alias("image_id"),
            F.max_by("state", "at").alias("state"),
        )
    )


def present(images: DataFrame, files: DataFrame) -> DataFrame:
    """The rows of `images` that hold what lies at their path now, as far as `ingest` has seen.

    Left out are overwritten contents and, where `on_missing=mark` has noted them, removed files.

    Args:
        images: The `images` table.
        files: The `files` table.
    """
    now = paths(images, files).where(F.col("state") != GONE).select("path", "image_id")
    return images.join(now, ["path", "image_id"], "left_semi")


def pending(images: DataFrame, listed_files: pa.Table, files: DataFrame) -> DataFrame:
    """The listed files whose path, size and modified time no table holds, and those that are back.

    Args:
        images: The `images` table.
        listed_files: What lies in the source, as `sources.LISTED`.
        files: The `files` table.

    Returns:
        The columns of `listed_files` and `known`: the image_ids that `images` has for that path.
    """
    listed = images.sparkSession.createDataFrame(listed_files)
    facts = ["path", "size_bytes", "modified_at"]
    known = paths(images, files)
    gone = known.where(F.col("state") == GONE)
    seen = images.select(*facts).unionByName(files.select(*facts)).join(gone, "path", "left_anti")
    missing = listed.join(seen, facts, "left_anti")
    return missing.join(known.select("path", "known"), "path", "left")


@dataclass(frozen=True, slots=True)
class Planned:
    """What an ingest would look at."""

    listed: int
    """Image files in the source."""
    new: int
    """Files at a path that the table does not know."""
    changed: int
    """Files of another size or modified time than the table knows for their path."""
    size_bytes: int
    """Bytes of the new and changed files."""
    left: dict[str, int]
    """Files that would be left, by reason: as `Listing.left`."""


def plan(spark: SparkSession, lake: str, listed: Listing) -> Planned:
    """What an ingest would look at now; reads no file and writes nothing.

    Args:
        spark: A session with Delta.
        lake: As `tables.locate` gives it; it need not be there yet.
        listed: What lies in the source.
    """
    todo = pending(
        _rows_of(spark, lake, "images"), listed.files, _rows_of(spark, lake, "files")
    ).agg(
        F.count_if(F.col("known").isNull()).alias("new"),
        F.count_if(F.col("known").isNotNull()).alias("changed"),
        F.coalesce(F.sum("size_bytes"), F.lit(0)).alias("size_bytes"),
    )
    [(new, changed, size_bytes)] = todo.collect()
    return Planned(listed.files.num_rows, new, changed, size_bytes, listed.left)


def _rows_of(spark: SparkSession, lake: str, table: str) -> DataFrame:
    """A table's rows now, none when there is no table yet."""
    if tables.exists(spark, lake, table):
        return tables.read(spark, lake, table)
    return spark.createDataFrame([], tables.schema(table))


def ingest(
    spark: SparkSession,
    lake: str,
    listed: Listing,
    *,
    wave_files: int = WAVE_FILES,
    on_wave: Callable[[int, int], None] = lambda done, total: None,
) -> Ingested:
    """Adds a row for each listed file that is new or overwritten, wave by wave.

    Args:
        spark: A session with Delta.
        lake: As `tables.locate` gives it.
        listed: What lies in the source.
        wave_files: Files in one commit, at most.
        on_wave: Told the files done and the files to do, after each commit.
    """
    since = tables.snapshot(spark, lake, "images", "ingest")
    rows = errors = size_bytes = 0
    while True:
        counts = image_files.counts(spark)
        files = _rows_of(spark, lake, "files")
        todo = pending(since.read(spark), listed.files, files).toArrow().sort_by("path")
        todo, unchanged = _look(spark, listed.source, todo, counts)
        if unchanged.num_rows:
            _note(spark, lake, unchanged, UNCHANGED)
            counts.add(Counter(unchanged=unchanged.num_rows))
        done, lost = 0, False
        for wave in _waves(todo, wave_files):
            seen = Observation()
            frame = image_files.read(spark, listed.source, wave, counts).observe(
                seen,
                F.count("*").alias("rows"),
                F.count("error").alias("errors"),
                F.coalesce(F.sum("size_bytes"), F.lit(0)).alias("size_bytes"),
            )
            appended = tables.append(frame, since)
            if appended is None:
                lost = True
                break
            since = appended
            rows, errors = rows + seen.get["rows"], errors + seen.get["errors"]
            size_bytes += seen.get["size_bytes"]
            done += wave.num_rows
            on_wave(done, todo.num_rows)
        if not lost:
            break
        since = tables.snapshot(spark, lake, "images", "ingest")
    left = Counter(listed.left) + counts.value
    return Ingested(listed.files.num_rows, rows, errors, size_bytes, left, since.version)


def _waves(todo: pa.Table, wave_files: int) -> Iterator[pa.Table]:
    """Slices of at most `wave_files` files and WAVE_BYTES bytes, one file at the least."""
    start = size = 0
    for end, file_bytes in enumerate(todo["size_bytes"].to_pylist()):
        if end > start and (end - start == wave_files or size + file_bytes > WAVE_BYTES):
            yield todo.slice(start, end - start)
            start, size = end, 0
        size += file_bytes
    if todo.num_rows > start:
        yield todo.slice(start)


def _look(
    spark: SparkSession, source: str, todo: pa.Table, counts: Any
) -> tuple[pa.Table, pa.Table]:
    """Parts what will give rows from files that were touched and have the bytes they had.

    A wave of nothing but touched and unreadable files would be an empty commit, at every ingest.
    So the files whose path the table knows, few as a rule, and any files when there are few, are
    read once more, before.

    Returns:
        What to read into rows; and the unchanged files, with their `image_id`. What cannot be
        read now is in neither, and stays pending.
    """
    few = todo.num_rows <= FEW
    doubtful = todo if few else todo.filter(pc.is_valid(todo["known"]))
    if not doubtful.num_rows:
        return todo, doubtful
    looked = image_files.read(spark, source, doubtful, counts, with_content=False)
    found = looked.select("path", "image_id").toArrow()
    ids = dict(zip(found["path"].to_pylist(), found["image_id"].to_pylist(), strict=True))
    new, same = [], []
    for path, known in zip(todo["path"].to_pylist(), todo["known"].to_pylist(), strict=True):
        image_id = ids.get(path)
        same.append(image_id in (known or ()))
        new.append(image_id not in (known or ()) if image_id else not few and known is None)
    unchanged = todo.filter(pa.array(same, pa.bool_()))
    unchanged_ids = pa.array([ids[path] for path in unchanged["path"].to_pylist()], pa.string())
    return todo.filter(pa.array(new, pa.bool_())), unchanged.append_column(
        "image_id", unchanged_ids
    )


def mark_missing(spark: SparkSession, lake: str, listed: Listing) -> int:
    """Notes which ingested files below a source are there no more; gives back how many.

    A file that the listing left out for another reason, such as its suffix, is there.

    Args:
        spark: A session with Delta.
        lake: As `tables.locate` gives it.
        listed: What lies in the source.
    """
    below = F.col("path").startswith(f"{listed.source.rstrip('/')}/")
    known = paths(_rows_of(spark, lake, "images"), _rows_of(spark, lake, "files"))
    there = spark.createDataFrame(listed.files.select(["path"]))
    doubtful = known.where(below & (F.col("state") != GONE)).join(there, "path", "left_anti")
    asked = doubtful.select("path", "image_id").toArrow()
    missing = missing_files(listed.source, asked["path"].to_pylist())
    gone = asked.filter(pa.array(missing, pa.bool_()))
    if gone.num_rows:
        for name, kind in (("size_bytes", pa.int64()), ("modified_at", pa.timestamp("us", "UTC"))):
            gone = gone.append_column(name, pa.nulls(gone.num_rows, kind))
        _note(spark, lake, gone, GONE)
    return int(gone.num_rows)


def _note(spark: SparkSession, lake: str, files: pa.Table, state: str) -> None:
    """Notes in `files` what was seen; when another ingest is faster, it has noted the same."""
    since = tables.snapshot(spark, lake, "files", "ingest")
    seen = spark.createDataFrame(files.select(["path", "size_bytes", "modified_at", "image_id"]))
    noted = seen.withColumn("state", F.lit(state)).withColumn("at", F.current_timestamp())
    tables.append(noted, since)
