"""Reads the files of a source in Spark tasks and writes their rows as data files of `images`."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import SparkSession

from mlproject.images.image_files import BROKEN, Reading, in_batches, read_file
from mlproject.ingestion import labels
from mlproject.integrations.object_storage import open_source
from mlproject.lake import data_files
from mlproject.lake.data_files import DataFile
from mlproject.lake.schemas import SCHEMAS

Result = TypeVar("Result")

TASK_BYTES = 128 * 1024**2  # bytes a task, and so about a data file of the table
BROKEN_AT_MOST = 3  # files in a row: then the server is down, and a task skips its other files
FOUND = pa.schema([field for field in SCHEMAS["images"] if field.name != "ingested_at"])


@dataclass(frozen=True, slots=True)
class Writing:
    """Where rows are written, and the columns that do not come from their files."""

    path: str
    """The folder or URI of the table `images`."""
    version: int
    """The version of the table that pending files were found at."""
    ingested_at: datetime
    """The time of all rows of the commit, by which scoring finds their data files."""
    given: pa.Table | None = None
    """Labels that replace those of the listing, as `labels.read_labels` gives them."""

    def table_rows(self, found: pa.RecordBatch) -> pa.Table:
        """The rows with all columns of the table."""
        rows = pa.Table.from_batches([found])
        if self.given is not None:
            rows = labels.relabelled(rows, self.given)
        at = pa.array([self.ingested_at] * found.num_rows, pa.timestamp("us", "UTC"))
        return rows.append_column("ingested_at", at)


def hash_files(spark: SparkSession, files: pa.Table, reading: Reading, counts: Any) -> pa.Table:
    """The hashes of files, read in tasks: path, image_id. Nothing is written.

    Args:
        spark: A session.
        files: As `source_listing.LISTED`.
        reading: Where the files are.
        counts: As `counts` gives it; counts the files that cannot be read now.
    """

    def task(part: pa.Table) -> pa.Table:
        rows = [(row["path"], row["image_id"]) for row in _rows(part, reading, counts)]
        columns = list(zip(*rows, strict=True)) or [(), ()]
        return pa.table([pa.array(column, pa.string()) for column in columns], ["path", "image_id"])

    return pa.concat_tables(_in_tasks(spark, files, task))


def write_rows(
    spark: SparkSession, files: pa.Table, reading: Reading, counts: Any, writing: Writing
) -> list[DataFile]:
    """Reads and hashes files in tasks and writes their rows as data files of `images`.

    The bytes go from the file to the data file in one process: through Spark's own writer they are
    copied some ten times. No commit names the data files yet.

    Args:
        spark: A session.
        files: As `source_listing.LISTED`, and `known`: the image_ids in `images` of the path.
        reading: What is read into the rows.
        counts: As `counts` gives it; counts the files that give no row.
        writing: Where the rows go.
    """

    def task(part: pa.Table) -> DataFile | None:
        tables = map(writing.table_rows, in_batches(_new(part, reading, counts), FOUND))
        return data_files.write(tables, SCHEMAS["images"], writing.path, writing.version)

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
    _, filesystem, prefix = open_source(reading.source)
    broken = 0
    for file in files.to_pylist():
        is_down = broken >= BROKEN_AT_MOST
        row, reason = (None, BROKEN) if is_down else read_file(filesystem, prefix, file, reading)
        broken = broken + 1 if reason == BROKEN else 0
        if row is None:
            counts.add(Counter({"unreadable" if reason == BROKEN else reason: 1}))
        else:
            yield row
