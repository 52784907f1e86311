"""Reads the files of a source in Spark tasks and writes their rows as data files of `images`."""

from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from itertools import chain
from threading import Event
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import SparkSession

from mlproject.images.image_files import BROKEN, Reading, held_bytes, in_batches, read_file
from mlproject.ingestion import labels
from mlproject.lake import data_files
from mlproject.lake.data_files import DataFile
from mlproject.lake.schemas import SCHEMAS
from mlproject.lake.snapshots import Snapshot
from mlproject.storage.object_storage import reader
from mlproject.storage.overlap import LOCAL, REMOTE, overlapped

Result = TypeVar("Result")

TASK_BYTES = 128 * 1024**2  # bytes a task, and so about a data file of the table
BROKEN_AT_MOST = 3  # files in a row: then the server is down, and a task skips its other files


def hash_files(
    spark: SparkSession, files: pa.Table, reading: Reading, counts: Any
) -> dict[str, str]:
    """Path -> image_id of listed files, read in tasks; those that cannot be read are counted."""

    def task(part: pa.Table) -> list[tuple[str, str]]:
        return [(row["path"], row["image_id"]) for row in _rows(part, reading, counts)]

    return dict(chain.from_iterable(_in_tasks(spark, files, task)))


def write_rows(
    spark: SparkSession,
    files: pa.Table,
    reading: Reading,
    counts: Any,
    since: Snapshot,
    given: pa.Table | None,
) -> list[DataFile]:
    """Reads and hashes files in tasks and writes their rows as data files of `images`.

    The bytes go from the file to the data file in one process: through Spark's own writer they are
    copied some ten times. No commit names the data files yet.

    Args:
        spark: A session.
        files: As `known_files.pending` gives them.
        reading: What is read into the rows.
        counts: Counts the files that give no row, by reason.
        since: The version of `images` that the files were pending at.
        given: Labels that replace those of the listing.
    """
    path, version = since.path, since.version
    ingested_at = datetime.now(UTC)  # of all rows of a commit: scoring finds their files by it
    if given is not None and "path" in given.column_names:  # each task gets these labels
        given = given.filter(pc.is_in(given["path"], files["path"]))

    def task(part: pa.Table) -> DataFile | None:
        new = _new(part, reading, counts)
        rows = ({**row, "ingested_at": ingested_at} for row in new)
        batches = in_batches(rows, SCHEMAS["images"])
        tables = (labels.relabelled(pa.Table.from_batches([batch]), given) for batch in batches)
        return data_files.write(tables, SCHEMAS["images"], path, version)

    return [file for file in _in_tasks(spark, files, task) if file is not None]


def _in_tasks(
    spark: SparkSession, files: pa.Table, task: Callable[[pa.Table], Result]
) -> list[Result]:
    """The results of a function for balanced parts of the files: one or more a task slot."""
    size = pc.sum(files["size_bytes"]).as_py() or 0
    slots = min(files.num_rows, spark.sparkContext.defaultParallelism)
    count = max(1, slots, -(-size // TASK_BYTES))
    parts = [files.take(pa.array(range(part, files.num_rows, count))) for part in range(count)]
    return spark.sparkContext.parallelize(parts, count).map(task).collect()


def _new(files: pa.Table, reading: Reading, counts: Any) -> Iterator[dict[str, Any]]:
    """The rows of files whose bytes are not known for their path."""
    known = dict(zip(files["path"].to_pylist(), files["known"].to_pylist(), strict=True))
    for row in _rows(files, reading, counts):
        if row["image_id"] in (known[row["path"]] or ()):
            counts.add(Counter(unchanged=1))  # it changed back since it was hashed
        else:
            yield row


def _rows(files: pa.Table, reading: Reading, counts: Any) -> Iterator[dict[str, Any]]:
    """The rows of the files that can be read."""
    read, is_down = reader(reading.source), Event()

    def row_of(file: dict[str, Any]) -> tuple[dict[str, Any] | None, str]:
        return (None, BROKEN) if is_down.is_set() else read_file(read, file, reading)

    at_once = REMOTE if "://" in reading.source else LOCAL
    broken = 0
    for row, reason in overlapped(row_of, files.to_pylist(), held_bytes, at_once=at_once):
        broken = broken + 1 if reason == BROKEN else 0
        if broken >= BROKEN_AT_MOST:
            is_down.set()
        if row is None:
            counts.add(Counter({"unreadable" if reason == BROKEN else reason: 1}))
        else:
            yield row
