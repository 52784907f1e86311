"""Reads image files in Spark tasks: bytes, hashes and header facts, as rows of `images`."""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import fs
from pyspark.accumulators import AccumulatorParam
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.pandas.types import to_arrow_schema
from pyspark.sql.types import StructType

from mlproject import tables
from mlproject.onboard import header
from mlproject.sources import open_source

TASK_BYTES = 128 * 1024**2  # bytes a task, and so about a data file of the table
INLINE_BYTES = 100_000_000  # bytes; what the versions' own limit `max_bytes` refuses anyway
BATCH_BYTES = 16 * 1024**2  # bytes a batch from Python to Spark, and a row group
BLOCK_BYTES = 1024**2  # bytes read at a time


class _Counters(AccumulatorParam[Counter[str]]):
    """Adds up what tasks met; a task that Spark runs twice is counted twice."""

    def zero(self, value: Counter[str]) -> Counter[str]:
        return Counter()

    def addInPlace(self, value1: Counter[str], value2: Counter[str]) -> Counter[str]:  # noqa: N802 - Spark's name
        value1.update(value2)
        return value1


def counts(spark: SparkSession) -> Any:
    """An accumulator of counts by reason."""
    return spark.sparkContext.accumulator(Counter(), _Counters())


def _tasks(spark: SparkSession, files: pa.Table) -> DataFrame:
    """The files as a DataFrame of balanced partitions: a slot each, more when they are large."""
    size = pc.sum(files["size_bytes"]).as_py() or 0
    slots = min(files.num_rows, spark.sparkContext.defaultParallelism)
    count = max(1, slots, -(-size // TASK_BYTES))
    return spark.createDataFrame(files).repartition(count)


def read(
    spark: SparkSession, source: str, files: pa.Table, counts: Any, *, with_content: bool = True
) -> DataFrame:
    """The rows of `images` for these files, read and hashed in tasks.

    Args:
        spark: A session.
        source: As `Listing.source`.
        files: As `sources.LISTED`, and `known`: the image_ids that `images` has for the path.
        counts: As `counts` gives it; told of the files that give no row.
        with_content: Whether rows carry the bytes. With them, files whose bytes are known for
            their path give no row.
    """
    columns = tables.schema("images")
    found = StructType([field for field in columns if field.name != "ingested_at"])
    read = _reader(
        source, counts, to_arrow_schema(found, timezone="UTC"), with_content=with_content
    )
    rows = _tasks(spark, files).mapInArrow(read, found)
    return rows.withColumn("ingested_at", F.current_timestamp()).select(*columns.fieldNames())


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
            elif row["image_id"] in (file["known"] or ()):
                counts.add(Counter(unchanged=1))  # it changed back since it was looked at
                continue
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
