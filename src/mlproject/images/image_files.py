"""Reads image files in Spark tasks: their bytes, hashes and headers become rows of `images`."""

import hashlib
import io
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO, cast

import pyarrow as pa
from pyspark.accumulators import AccumulatorParam
from pyspark.sql import SparkSession

from mlproject.images.thumbnails import jpeg
from mlproject.inference import Header, header
from mlproject.inference.errors import TOO_MANY_BYTES
from mlproject.lake.data_files import ROW_GROUP_IMAGES
from mlproject.storage import object_storage

HELD_BYTES = 100_000_000  # bytes of a file in memory, at most; equals `max_bytes` of versions
BATCH_BYTES = 16 * 1024**2  # bytes of a batch from Python to Spark, and of a row group
ROW_BYTES = 1024  # bytes of a row in Python, without content
BLOCK_BYTES = 1024**2  # bytes read at a time
BROKEN = "broken connection"
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
HEADER_BYTES = 16 * 1024**2  # bytes of the header of a file above HELD_BYTES, at most


@dataclass(frozen=True, slots=True)
class Reading:
    """Which values of a file are stored in its row."""

    source: str
    """As `Listing.source`."""
    inline_bytes: int = HELD_BYTES
    """Files up to this size, and up to HELD_BYTES, are stored with their content."""
    thumbnail_px: int = 0
    """Side of the thumbnail, pixels; 0 = none."""


class _Counters(AccumulatorParam[Counter[str]]):
    """Adds up the counts of tasks; a task that Spark runs twice is counted twice."""

    def zero(self, value: Counter[str]) -> Counter[str]:
        return Counter()

    def addInPlace(self, value1: Counter[str], value2: Counter[str]) -> Counter[str]:  # noqa: N802 - Spark's name
        value1.update(value2)
        return value1


def counts(spark: SparkSession) -> Any:
    """An accumulator of counts by reason."""
    return spark.sparkContext.accumulator(Counter(), _Counters())


def in_batches(rows: Iterable[dict[str, Any]], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """The rows in batches of bounded bytes and images."""
    together: list[dict[str, Any]] = []
    held = images = 0
    for row in rows:
        together.append(row)
        images += row["content"] is not None
        held += ROW_BYTES + len(row["content"] or b"") + len(row.get("thumbnail") or b"")
        if held >= BATCH_BYTES or images >= ROW_GROUP_IMAGES:
            yield pa.RecordBatch.from_pylist(together, schema=schema)
            together, held, images = [], 0, 0
    yield pa.RecordBatch.from_pylist(together, schema=schema)


def read_file(
    read: Callable[[str], Iterator[bytes]], file: dict[str, Any], reading: Reading
) -> tuple[dict[str, Any] | None, str]:
    """The row of a listed file, without `ingested_at`; or None and why it cannot be read now.

    `read` is the `object_storage.reader` of its source.
    """
    path = file["path"]
    try:
        image_id, size, content = hashed(read(path))
        if size != file["size_bytes"] or _modified_since(path, file["modified_at"]):
            return None, "changing"
        found = header(io.BytesIO(content)) if content is not None else _header(path, reading)
    except object_storage.FileChangedError:
        return None, "changing"
    except (FileNotFoundError, NotADirectoryError):
        return None, "gone"
    except OSError as error:
        return None, BROKEN if object_storage.is_broken(error) else "unreadable"
    inline = content is not None and size <= reading.inline_bytes
    thumbnail = jpeg(content, reading.thumbnail_px) if content and reading.thumbnail_px else None
    return {
        "path": file["path"],
        "image_id": image_id,
        "size_bytes": size,
        "modified_at": file["modified_at"],
        "format": found.format or None,
        "width": found.width or None,
        "height": found.height or None,
        "label": file["label"],
        "content": content if inline else None,
        "thumbnail": thumbnail,
        "error": found.error or None,
    }, ""


def hashed(blocks: Iterable[bytes]) -> tuple[str, int, bytes | None]:
    """Sha256, size in bytes and content (up to HELD_BYTES) of a file, from its bytes in blocks."""
    digest, size, held = hashlib.sha256(), 0, []
    for block in blocks:
        digest.update(block)
        size += len(block)
        if size <= HELD_BYTES:
            held.append(block)
        else:
            held.clear()
    return digest.hexdigest(), size, b"".join(held) if size <= HELD_BYTES else None


def held_bytes(file: dict[str, Any]) -> int:
    """Bytes in memory of a file that is read by `hashed`, from its row with `size_bytes`."""
    return min(int(file["size_bytes"]), HELD_BYTES)


def _modified_since(path: str, listed: datetime | None) -> bool:
    """Whether a local file was written since it was listed; object stores replace objects whole."""
    if listed is None or "://" in path:
        return False
    return bool(Path(path).stat().st_mtime_ns // 1000 != (listed - EPOCH) // timedelta.resolution)


def _header(path: str, reading: Reading) -> Header:
    """The header of a file that is too large for memory: Pillow reads only what it needs."""
    with object_storage.open_file(reading.source, path) as file:
        start = _Start(file)
        found = header(cast(BinaryIO, io.BufferedReader(start, BLOCK_BYTES)))
        return found._replace(error=TOO_MANY_BYTES) if start.left < 0 else found


class _Start(io.RawIOBase):
    """A file of which HEADER_BYTES can be read: some formats of Pillow read all bytes at once."""

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
