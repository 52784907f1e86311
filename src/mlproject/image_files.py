"""Reads image files in Spark tasks: bytes, hashes and header facts, as rows of `images`."""

import hashlib
import io
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO, cast

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import fs
from pyspark.accumulators import AccumulatorParam
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.pandas.types import to_arrow_schema
from pyspark.sql.types import StructType

from mlproject import s3, tables
from mlproject.onboard import Header, header, header_of
from mlproject.onboard.errors import TOO_MANY_BYTES
from mlproject.session import from_arrow
from mlproject.sources import open_source
from mlproject.thumbnails import jpeg

TASK_BYTES = 128 * 1024**2  # bytes a task, and so about a data file of the table
HELD_BYTES = 100_000_000  # bytes of a file in memory, at most; the versions' own `max_bytes`
BATCH_BYTES = 16 * 1024**2  # bytes a batch from Python to Spark, and a row group
ROW_BYTES = 1024  # bytes of a row in Python, without content
BLOCK_BYTES = 1024**2  # bytes read at a time
BROKEN = "broken connection"
BROKEN_AT_MOST = 3  # files in a row: then a server is down, and a task's other files are left
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
HEADER_BYTES = 16 * 1024**2  # bytes of a file above HELD_BYTES that its header may take


@dataclass(frozen=True, slots=True)
class Reading:
    """What of a file comes into its row."""

    source: str
    """As `Listing.source`."""
    inline_bytes: int = HELD_BYTES
    """The bytes of files up to this size come into the table; those of no file above HELD_BYTES."""
    thumbnail_px: int = 0
    """Side of the thumbnail, pixels; 0 = none."""


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


def read(
    spark: SparkSession, files: pa.Table, reading: Reading, counts: Any, *, look: bool = False
) -> DataFrame:
    """The rows of `images` for these files, read and hashed in tasks.

    Args:
        spark: A session.
        files: As `sources.LISTED`, and `known`: the image_ids that `images` has for the path.
        reading: What comes into the rows.
        counts: As `counts` gives it; told of the files that give no row.
        look: Rows for files whose bytes are known for their path too, and none carries bytes.
    """
    columns = tables.schema("images")
    found = StructType([field for field in columns if field.name != "ingested_at"])
    schema = to_arrow_schema(found, timezone="UTC")
    rows = _tasks(spark, files).mapInArrow(_reader(reading, counts, schema, look=look), found)
    return rows.withColumn("ingested_at", F.current_timestamp()).select(*columns.fieldNames())


def _tasks(spark: SparkSession, files: pa.Table) -> DataFrame:
    """The files as a DataFrame of balanced partitions: a slot each, more when they are large."""
    size = pc.sum(files["size_bytes"]).as_py() or 0
    slots = min(files.num_rows, spark.sparkContext.defaultParallelism)
    count = max(1, slots, -(-size // TASK_BYTES))
    return from_arrow(spark, files).repartition(count)


def _reader(
    reading: Reading, counts: Any, schema: pa.Schema, *, look: bool
) -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """A function for mapInArrow: listed files in, rows of `images` out."""

    def read(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        _, filesystem, prefix = open_source(reading.source)

        def rows() -> Iterator[dict[str, Any]]:
            broken = 0
            for file in (file for batch in batches for file in batch.to_pylist()):
                is_down = broken >= BROKEN_AT_MOST
                row, reason = (
                    (None, BROKEN) if is_down else read_file(filesystem, prefix, file, reading)
                )
                broken = broken + 1 if reason == BROKEN else 0
                if row is None:
                    counts.add(Counter({"unreadable" if reason == BROKEN else reason: 1}))
                elif look:
                    yield {**row, "content": None}
                elif row["image_id"] in (file["known"] or ()):
                    counts.add(Counter(unchanged=1))  # it changed back since it was looked at
                else:
                    yield row

        yield from in_batches(rows(), schema)

    return read


def in_batches(rows: Iterable[dict[str, Any]], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """The rows in batches of bounded bytes."""
    together: list[dict[str, Any]] = []
    held = 0
    for row in rows:
        together.append(row)
        held += ROW_BYTES + len(row["content"] or b"") + len(row.get("thumbnail") or b"")
        if held >= BATCH_BYTES:
            yield pa.RecordBatch.from_pylist(together, schema=schema)
            together, held = [], 0
    yield pa.RecordBatch.from_pylist(together, schema=schema)


def read_file(
    filesystem: fs.FileSystem, prefix: str, file: dict[str, Any], reading: Reading
) -> tuple[dict[str, Any] | None, str]:
    """One file's row, without `ingested_at`; or None and why there is none yet.

    Args:
        filesystem: Where it lies.
        prefix: What the canonical path has before the file system's own.
        file: As a row of `sources.LISTED`.
        reading: What comes into the row.
    """
    path = file["path"].removeprefix(prefix)
    try:
        image_id, size, content = hashed(filesystem, path)
        if size != file["size_bytes"] or _modified_since(filesystem, path, file["modified_at"]):
            return None, "changing"
        facts = header(content) if content is not None else _header(filesystem, path)
    except (FileNotFoundError, NotADirectoryError):
        return None, "gone"
    except OSError as error:
        return None, BROKEN if s3.is_broken(error) else "unreadable"
    inline = content is not None and size <= reading.inline_bytes
    thumbnail = jpeg(content, reading.thumbnail_px) if content and reading.thumbnail_px else None
    return {
        "path": file["path"],
        "image_id": image_id,
        "size_bytes": size,
        "modified_at": file["modified_at"],
        "format": facts.format or None,
        "width": facts.width or None,
        "height": facts.height or None,
        "label": file["label"],
        "content": content if inline else None,
        "thumbnail": thumbnail,
        "error": facts.error or None,
    }, ""


def hashed(filesystem: fs.FileSystem, path: str) -> tuple[str, int, bytes | None]:
    """A file's sha256, its size (-1: it changed meanwhile), and its bytes up to HELD_BYTES."""
    digest, size, blocks = hashlib.sha256(), 0, []
    with filesystem.open_input_stream(path, compression=None) as stream:
        version = stream.metadata()
        while block := stream.read(BLOCK_BYTES):
            digest.update(block)
            size += len(block)
            if size <= HELD_BYTES:
                blocks.append(block)
            else:
                blocks.clear()
    # The size and each block are requests of their own: of an object that is overwritten meanwhile
    # they are of two. Its ETag tells. Source: Arrow C++, ObjectInputFile::Init and ReadAt
    if not isinstance(filesystem, fs.LocalFileSystem) and _version(filesystem, path) != version:
        return "", -1, None
    return digest.hexdigest(), size, b"".join(blocks) if size <= HELD_BYTES else None


def _version(filesystem: fs.FileSystem, path: str) -> Any:
    """What a remote file system tells of the bytes that lie at a path now."""
    with filesystem.open_input_stream(path, compression=None) as stream:
        return stream.metadata()


def _modified_since(filesystem: fs.FileSystem, path: str, listed: datetime | None) -> bool:
    """Whether a local file was written since it was listed; object stores replace objects whole."""
    if listed is None or not isinstance(filesystem, fs.LocalFileSystem):
        return False
    return bool(Path(path).stat().st_mtime_ns // 1000 != (listed - EPOCH) // timedelta.resolution)


def _header(filesystem: fs.FileSystem, path: str) -> Header:
    """The header of a file that is too large to be held: only what Pillow asks for is read."""
    with filesystem.open_input_file(path) as file:
        start = _Start(file)
        found = header_of(cast(BinaryIO, io.BufferedReader(start, BLOCK_BYTES)))
        return found._replace(error=TOO_MANY_BYTES) if start.left < 0 else found


class _Start(io.RawIOBase):
    """A file that lets HEADER_BYTES be read: some of Pillow's formats ask for all bytes at once."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self.left = HEADER_BYTES

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        return int(self._file.seek(offset, whence))

    def tell(self) -> int:
        return int(self._file.tell())

    def readinto(self, buffer: Any) -> int:
        self.left -= len(buffer)
        if self.left < 0:
            raise OSError(f"the header takes more than {HEADER_BYTES} bytes")
        data = self._file.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)
