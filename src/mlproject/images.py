"""Image files to rows of the `images` table: list the source, subtract the table, read the rest."""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import fs
from pyspark.accumulators import AccumulatorParam
from pyspark.sql import DataFrame, Observation, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.pandas.types import to_arrow_schema
from pyspark.sql.types import StructType

from mlproject import tables
from mlproject.onboard import header
from mlproject.sources import Listing, open_source

WAVE_FILES = 10_000  # files a commit: tens of seconds of work on two cores
WAVE_BYTES = 1024**3  # bytes a commit
TASK_BYTES = 128 * 1024**2  # bytes a task, and so about a data file of the table
INLINE_BYTES = 100_000_000  # bytes; what the versions' own limit `max_bytes` refuses anyway
BATCH_BYTES = 16 * 1024**2  # bytes a batch from Python to Spark, and a row group
FEW = 100  # files that are worth reading twice for the sake of no empty commit
BLOCK_BYTES = 1024**2  # bytes read at a time


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
    """Files that gave no row, by reason: empty, skipped, unchanged, changing, gone, unreadable."""
    table_version: int
    """The Delta version of `images` at the end."""


def pending(images: DataFrame, files: pa.Table) -> DataFrame:
    """The listed files whose path, size and modified time the table does not hold.

    Returns:
        The columns of `files` and `known`: the image_ids that the table has for that path.
    """
    listed = images.sparkSession.createDataFrame(files)
    seen = images.select("path", "size_bytes", "modified_at")
    known = images.groupBy("path").agg(F.collect_set("image_id").alias("known"))
    missing = listed.join(seen, ["path", "size_bytes", "modified_at"], "left_anti")
    return missing.join(known, "path", "left")


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
        counts = spark.sparkContext.accumulator(Counter(), _Counters())
        todo = pending(since.read(spark), listed.files).toArrow().sort_by("path")
        todo = _without_hopeless(spark, listed.source, todo, counts)
        done, lost = 0, False
        for wave in _waves(todo, wave_files):
            seen = Observation()
            frame = _read(spark, listed.source, wave, counts).observe(
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
    left = {"empty": listed.empty, "skipped": listed.skipped, **counts.value}
    left = {reason: count for reason, count in left.items() if count}
    return Ingested(listed.files.num_rows, rows, errors, size_bytes, left, since.version)


class _Counters(AccumulatorParam[Counter[str]]):
    """Adds up what tasks met; a task that Spark runs twice is counted twice."""

    def zero(self, value: Counter[str]) -> Counter[str]:
        return Counter()

    def addInPlace(self, value1: Counter[str], value2: Counter[str]) -> Counter[str]:  # noqa: N802 - Spark's name
        value1.update(value2)
        return value1


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


def _tasks(spark: SparkSession, files: pa.Table) -> DataFrame:
    """The files as a DataFrame of balanced partitions: a slot each, more when they are large."""
    size = pc.sum(files["size_bytes"]).as_py() or 0
    slots = min(files.num_rows, spark.sparkContext.defaultParallelism)
    count = max(1, slots, -(-size // TASK_BYTES))
    return spark.createDataFrame(files).repartition(count)


def _read(
    spark: SparkSession, source: str, files: pa.Table, counts: Any, *, with_content: bool = True
) -> DataFrame:
    """The rows of `images` for these files, read and hashed in tasks."""
    columns = tables.schema("images")
    found = StructType([field for field in columns if field.name != "ingested_at"])
    read = _reader(
        source, counts, to_arrow_schema(found, timezone="UTC"), with_content=with_content
    )
    rows = _tasks(spark, files).mapInArrow(read, found)
    return rows.withColumn("ingested_at", F.current_timestamp()).select(*columns.fieldNames())


def _without_hopeless(spark: SparkSession, source: str, todo: pa.Table, counts: Any) -> pa.Table:
    """Leaves out files that will give no row: touched ones with known bytes, unreadable ones.

    They stay pending, and a wave of nothing else would be an empty commit at every ingest. So
    the files whose path the table knows, few as a rule, and any files when there are few, are
    read once more, before.
    """
    few = todo.num_rows <= FEW
    doubtful = todo if few else todo.filter(pc.is_valid(todo["known"]))
    if not doubtful.num_rows:
        return todo
    read = _read(spark, source, doubtful, counts, with_content=False)
    rows = read.select("path").toArrow()["path"]
    left_out = pc.and_(
        pc.is_in(todo["path"], value_set=doubtful["path"]),
        pc.invert(pc.is_in(todo["path"], value_set=rows)),
    )
    return todo.filter(pc.invert(left_out))


def _reader(
    source: str, counts: Any, schema: pa.Schema, *, with_content: bool
) -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """A function for mapInArrow: listed files in, rows of `images` out, in bounded batches."""

    def read(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        _, filesystem, prefix = open_source(source)
        rows: list[dict[str, Any]] = []
        held = 0
        for file in (file for batch in batches for file in batch.to_pylist()):
            row, reason = _row(filesystem, prefix, file)
            if row is None:
                counts.add(Counter({reason: 1}))
                continue
            if not with_content:
                row["content"] = None
            rows.append(row)
            held += len(row["content"] or b"")
            if held >= BATCH_BYTES:
                yield pa.RecordBatch.from_pylist(rows, schema=schema)
                rows, held = [], 0
        yield pa.RecordBatch.from_pylist(rows, schema=schema)

    return read


def _row(
    filesystem: fs.FileSystem, prefix: str, file: dict[str, Any]
) -> tuple[dict[str, Any] | None, str]:
    """One file's row, or None and why there is none yet."""
    digest, size, blocks = hashlib.sha256(), 0, []
    path = file["path"].removeprefix(prefix)
    try:
        with filesystem.open_input_stream(path, compression=None) as stream:
            while block := stream.read(BLOCK_BYTES):
                digest.update(block)
                size += len(block)
                if size <= INLINE_BYTES:
                    blocks.append(block)
    except FileNotFoundError:
        return None, "gone"
    except OSError:
        return None, "unreadable"
    if size != file["size_bytes"]:
        return None, "changing"
    if digest.hexdigest() in (file["known"] or ()):
        return None, "unchanged"
    content = b"".join(blocks) if size <= INLINE_BYTES else None
    facts = header(content) if content is not None else None
    return {
        "path": file["path"],
        "image_id": digest.hexdigest(),
        "size_bytes": size,
        "modified_at": file["modified_at"],
        "format": (facts.format or None) if facts else None,
        "width": (facts.width or None) if facts else None,
        "height": (facts.height or None) if facts else None,
        "label": file["label"],
        "content": content,
        "error": (facts.error or None) if facts else "too_many_bytes",
    }, ""
