"""Data files of our tables: Parquet, with the statistics that the log has of each.

Imports little on purpose: Spark's workers import it.
"""

import contextlib
import re
import time
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from decimal import Decimal
from itertools import chain
from typing import Any
from urllib.parse import quote

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyarrow import fs

from mlproject.lake import snapshots
from mlproject.storage.object_storage import open_path

ROW_GROUP_BYTES = 16 * 1024**2  # bytes that a reader of content holds at once
# Images in it, for those of few bytes: a row group is the least that a task reads.
ROW_GROUP_IMAGES = 512
# Bounds of columns whose values must not stand in the log, such as paths and hashes, which the log
# keeps longer than the rows: wide ones. With bounds for some columns only, deltalake's pyarrow
# reader reads those of the others as null and skips the file under any filter on them.
LOWEST, HIGHEST = "", "\U0010ffff"

# Columns of few different values; of the others a dictionary only costs time.
_DICTIONARIES = {"format", "label", "error", "model_id", "run_id", "model_name", "state", "source"}
_MEASURED = (pa.types.is_integer, pa.types.is_floating, pa.types.is_date, pa.types.is_timestamp)
_NAME = re.compile(r"part-(\d{20})-[0-9a-f-]{36}\.parquet")


@dataclass(frozen=True, slots=True)
class DataFile:
    """A data file that no commit names yet."""

    name: str
    """Its path below the table's folder; it holds the table version that it was begun at."""
    size_bytes: int
    """Its size."""
    written_ms: int
    """When it was written, milliseconds since 1970."""
    rows: int
    """Its rows."""
    errors: dict[str, int]
    """Rows among them by their value in column `error`, without nulls."""
    image_bytes: int
    """Sum of column `size_bytes` of the rows given for it, where they have one."""
    statistics: dict[str, Any]
    """As the log has them. Source: Delta protocol, "Per-file Statistics"."""
    partition_values: dict[str, str] = field(default_factory=dict)
    """Value of each partition column."""


def write(
    tables: Iterable[pa.Table],
    columns: pa.Schema,
    path: str,
    version: int,
    *,
    partition_values: Mapping[str, str] | None = None,
) -> DataFile | None:
    """Writes one data file into a table's folder; None when there are no rows.

    Each of `tables` becomes a row group; memory is bounded by two. Of their columns those of the
    table are written, except for its partitions. The rows were computed from table `version`.

    In a local folder no row is written after an erasure since that version, and the commit that
    would name the file is refused: an erasure either finds the file when it lists the folder, or
    is found here, since the file exists before the log is read (decision 9).
    """
    filled = (table for table in tables if table.num_rows)
    first = next(filled, None)
    if first is None:
        return None
    # Polars and DuckDB read partition values from folders. Only ASCII, as delta-rs 1.6.6 cannot
    # remove other paths.
    values = dict(partition_values or {})
    folders = [f"{column}={quote(value, safe='')}" for column, value in values.items()]
    name = "/".join([*folders, f"part-{version:020}-{uuid.uuid4()}.parquet"])
    filesystem, folder = open_path(path)
    columns = pa.schema([column for column in columns if column.name not in values])
    statistics, image_bytes = _Statistics(columns), 0
    options: dict[str, Any] = {
        "compression": "none",  # photos are compressed already
        "store_schema": False,
        "use_dictionary": [name for name in columns.names if name in _DICTIONARIES],
        "write_statistics": statistics.measured,
    }
    local = isinstance(filesystem, fs.LocalFileSystem)
    try:
        if local:
            # One level at a time: a table's folder that is absent is an error, never made here.
            for depth in range(1, len(folders) + 1):
                filesystem.create_dir("/".join([folder, *folders[:depth]]), recursive=False)
        with filesystem.open_output_stream(f"{folder}/{name}") as out:
            fenced = local and snapshots.last_erasure(path) > version
            with pq.ParquetWriter(out, columns, **options) as writer:
                for table in () if fenced else chain((first,), filled):
                    group = table.select(columns.names).cast(columns)
                    writer.write_table(group, row_group_size=group.num_rows)
                    statistics.add(group)
                    if "size_bytes" in table.column_names:
                        image_bytes += pc.sum(table["size_bytes"]).as_py() or 0
            size = out.tell()
    except BaseException:  # a stop too must leave no half file
        delete(path, [name])
        raise
    rows, logged = statistics.rows, statistics.logged()
    errors, written_ms = dict(statistics.errors), int(time.time() * 1000)
    return DataFile(name, size, written_ms, rows, errors, image_bytes, logged, values)


def delete(path: str, names: Iterable[str]) -> None:
    """Removes files of a table's folder that no commit names, as far as that is possible now."""
    filesystem, folder = open_path(path)
    for name in names:
        with contextlib.suppress(OSError):  # vacuum takes what is left
            filesystem.delete_file(f"{folder}/{name}")


def begun_at(name: str) -> int | None:
    """The table version a data file was begun at; None = an older release, or Spark, wrote it."""
    found = _NAME.fullmatch(name.rpartition("/")[2])
    return int(found[1]) if found else None


def row_groups(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.Table]:
    """Batches put together into tables of about `ROW_GROUP_BYTES` or `ROW_GROUP_IMAGES`."""
    together: list[pa.RecordBatch] = []
    held = images = 0
    for batch in batches:
        together.append(batch)
        held += batch.nbytes
        if "content" in batch.schema.names:
            images += batch.num_rows - batch["content"].null_count
        if held >= ROW_GROUP_BYTES or images >= ROW_GROUP_IMAGES:
            yield pa.Table.from_batches(together)
            together, held, images = [], 0, 0
    if together:
        yield pa.Table.from_batches(together)


def statistics_of(add: Mapping[str, Any]) -> dict[str, Any]:
    """Statistics as the log has them, of a row of `DeltaTable.get_add_actions()`."""
    lows, highs, nulls = (
        {name: value for name, value in (add.get(kind) or {}).items() if value is not None}
        for kind in ("min", "max", "null_count")
    )
    return _as_logged(add["num_records"], lows, highs, nulls)


def widened(statistics: Mapping[str, Any], columns: pa.Schema) -> dict[str, Any]:
    """Statistics with which no query skips a matching file: strings without bounds get wide ones.

    No bounds at all where another of the file's columns with values has none, such as a boolean.
    """
    lows, highs = dict(statistics["minValues"]), dict(statistics["maxValues"])
    nulls, rows = statistics["nullCount"], statistics["numRecords"]
    for column in columns:
        if column.name in lows or nulls.get(column.name) == rows:
            continue
        if pa.types.is_string(column.type):
            lows[column.name], highs[column.name] = LOWEST, HIGHEST
        elif not (pa.types.is_nested(column.type) or pa.types.is_binary(column.type)):
            lows, highs = {}, {}
            break
    return {**statistics, "minValues": lows, "maxValues": highs}


class _Statistics:
    """Rows, nulls of each column, and bounds of those that have an order."""

    def __init__(self, columns: pa.Schema) -> None:
        self.rows = 0
        self.nulls = dict.fromkeys(columns.names, 0)
        self.errors = Counter[str]()
        self.measured = [
            column.name for column in columns if any(is_one(column.type) for is_one in _MEASURED)
        ]
        self._columns = columns
        self._lows: dict[str, Any] = {}
        self._highs: dict[str, Any] = {}
        self._unbounded: set[str] = set()  # columns with an infinity, or a NaN

    def add(self, table: pa.Table) -> None:
        self.rows += table.num_rows
        for name in table.column_names:
            self.nulls[name] += table[name].null_count
        if "error" in table.column_names:
            self.errors.update(table["error"].drop_null().to_pylist())
        for name in self.measured:
            values = table[name]
            # Spark sorts NaN above all numbers.
            if pa.types.is_floating(values.type) and pc.all(pc.is_finite(values)).as_py() is False:
                self._unbounded.add(name)
            low, high = pc.min_max(values).as_py().values()
            if low is not None:
                self._lows[name] = min(low, self._lows.get(name, low))
                self._highs[name] = max(high, self._highs.get(name, high))

    def logged(self) -> dict[str, Any]:
        lows = {name: low for name, low in self._lows.items() if name not in self._unbounded}
        highs = {name: self._highs[name] for name in lows}
        return widened(_as_logged(self.rows, lows, highs, self.nulls), self._columns)


def _as_logged(
    rows: int, lows: Mapping[str, Any], highs: Mapping[str, Any], nulls: Mapping[str, int]
) -> dict[str, Any]:
    return {
        "numRecords": rows,
        "minValues": {name: _logged(low) for name, low in lows.items()},
        "maxValues": {name: _logged(high, up=True) for name, high in highs.items()},
        "nullCount": nulls,
        "tightBounds": False,
    }


def _logged(value: Any, *, up: bool = False) -> Any:
    """A bound as the log has it: a number, a string, or a time in whole milliseconds."""
    if isinstance(value, Mapping):
        return {name: _logged(inner, up=up) for name, inner in value.items() if inner is not None}
    if isinstance(value, Decimal):
        return float(value)
    if not isinstance(value, datetime):
        return value.isoformat() if isinstance(value, date) else value
    if up and value.microsecond % 1000 and value.year < datetime.max.year:
        value += timedelta(milliseconds=1)
    return f"{value.replace(tzinfo=None).isoformat(timespec='milliseconds')}Z"
