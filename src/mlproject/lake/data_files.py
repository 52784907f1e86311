"""Data files of our tables: Parquet, with the statistics that the log has of each.

Imports little on purpose: Spark's workers import it.
"""

import contextlib
import math
import re
import sys
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from itertools import chain
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from mlproject.integrations.object_storage import open_path

ROW_GROUP_BYTES = 16 * 1024**2  # bytes that a reader of content holds at once
# Bounds of columns whose values must not stand in the log, such as paths and hashes, which the log
# keeps longer than the rows: wide ones. With bounds for some columns only, deltalake's pyarrow
# reader takes those of the others for null and skips the file under any filter on them.
LOWEST, HIGHEST = "", "\U0010ffff"

_PARQUET: dict[str, Any] = {
    "compression": "none",  # photos are compressed already
    "store_schema": False,
}
# Columns of few different values; of the others a dictionary only costs time.
_DICTIONARIES = {"format", "label", "error", "model_id", "run_id", "model_name", "state", "source"}
_NAME = re.compile(r"part-(\d{20})-[0-9a-f-]{36}\.parquet")


@dataclass(frozen=True, slots=True)
class DataFile:
    """A data file that no commit names yet."""

    name: str
    """Its name in the table's folder; it holds the table version that it was begun at."""
    size_bytes: int
    """Its size."""
    written_ms: int
    """When it was written, milliseconds since 1970."""
    rows: int
    """Its rows."""
    errors: int
    """Rows among them whose column `error` is not null."""
    image_bytes: int
    """Sum of its column `size_bytes`, where it has one."""
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

    Memory is bounded by two row groups.

    Args:
        tables: Rows, in tables of bounded bytes; each becomes a row group.
        columns: Columns of the file: those of the table without its partitions.
        path: Folder or URI of the table.
        version: The table version that the rows were computed from.
        partition_values: Value of each partition column.
    """
    filled = (table for table in tables if table.num_rows)
    first = next(filled, None)
    if first is None:
        return None
    name = f"part-{version:020}-{uuid.uuid4()}.parquet"
    filesystem, folder = open_path(path)
    place = f"{folder}/{name}"
    statistics = _Statistics(columns)
    dictionaries = [column for column in columns.names if column in _DICTIONARIES]
    measured = [column.name for column in columns if _has_bounds(column.type)]
    options = {"use_dictionary": dictionaries, "write_statistics": measured, **_PARQUET}
    try:
        with filesystem.open_output_stream(place) as out:
            with pq.ParquetWriter(out, columns, **options) as writer:
                for table in chain((first,), filled):
                    rows = table.select(columns.names).cast(columns)
                    writer.write_table(rows, row_group_size=rows.num_rows)
                    statistics.add(rows)
            size = out.tell()
    except BaseException:  # a stop too must leave no half file
        delete(path, [name])
        raise
    written_ms, values = int(time.time() * 1000), dict(partition_values or {})
    errors = statistics.rows - statistics.nulls.get("error", statistics.rows)
    return DataFile(
        name,
        size,
        written_ms,
        statistics.rows,
        errors,
        statistics.image_bytes,
        statistics.logged(),
        values,
    )


def delete(path: str, names: Iterable[str]) -> None:
    """Removes files of a table's folder that no commit names, as far as that is possible now."""
    filesystem, folder = open_path(path)
    for name in names:
        with contextlib.suppress(OSError):  # vacuum takes what is left
            filesystem.delete_file(f"{folder}/{name}")


def begun_at(name: str) -> int | None:
    """The table version that a data file was begun at; None = an older release, or Spark, wrote it.

    Args:
        name: The file's name in the table's folder.
    """
    found = _NAME.fullmatch(name)
    return int(found[1]) if found else None


def row_groups(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.Table]:
    """Batches put together into tables of about `ROW_GROUP_BYTES`."""
    together: list[pa.RecordBatch] = []
    held = 0
    for batch in batches:
        together.append(batch)
        held += batch.nbytes
        if held >= ROW_GROUP_BYTES:
            yield pa.Table.from_batches(together)
            together, held = [], 0
    if together:
        yield pa.Table.from_batches(together)


def statistics_of(add: Mapping[str, Any]) -> dict[str, Any]:
    """Statistics as the log has them.

    Args:
        add: A row of `DeltaTable.get_add_actions()`.
    """
    lows, highs, nulls = (
        {name: value for name, value in (add.get(kind) or {}).items() if value is not None}
        for kind in ("min", "max", "null_count")
    )
    return {
        "numRecords": add["num_records"],
        "minValues": {name: _value(low) for name, low in lows.items()},
        "maxValues": {name: _value(high, up=True) for name, high in highs.items()},
        "nullCount": nulls,
        "tightBounds": False,
    }


def widened(statistics: Mapping[str, Any], columns: pa.Schema) -> dict[str, Any] | None:
    """Statistics with bounds for every column that can have some; None where nothing lacks.

    Args:
        statistics: As the log has them, of a file of an older release.
        columns: Columns of the file.
    """
    rows, nulls = statistics.get("numRecords"), statistics.get("nullCount", {})
    lows, highs = dict(statistics.get("minValues", {})), dict(statistics.get("maxValues", {}))
    wide = [
        column.name
        for column in columns
        if pa.types.is_string(column.type)
        and column.name not in lows
        and nulls.get(column.name) != rows
    ]
    if not wide or not lows:
        return None
    lows |= dict.fromkeys(wide, LOWEST)
    highs |= dict.fromkeys(wide, HIGHEST)
    return {**statistics, "minValues": lows, "maxValues": highs, "tightBounds": False}


class _Statistics:
    """Rows, nulls of each column, and bounds of those that have an order."""

    def __init__(self, columns: pa.Schema) -> None:
        self.rows = self.image_bytes = 0
        self.nulls = dict.fromkeys(columns.names, 0)
        self._columns = columns
        self._lows: dict[str, Any] = {}
        self._highs: dict[str, Any] = {}

    def add(self, table: pa.Table) -> None:
        self.rows += table.num_rows
        if "size_bytes" in self.nulls:
            self.image_bytes += pc.sum(table["size_bytes"]).as_py() or 0
        for column in self._columns:
            self.nulls[column.name] += table[column.name].null_count
            if _has_bounds(column.type):
                low, high = pc.min_max(table[column.name]).as_py().values()
                if low is not None:
                    self._lows[column.name] = min(low, self._lows.get(column.name, low))
                    self._highs[column.name] = max(high, self._highs.get(column.name, high))

    def logged(self) -> dict[str, Any]:
        lows = {name: _value(low) for name, low in self._lows.items()}
        highs = {name: _value(high, up=True) for name, high in self._highs.items()}
        for column in self._columns:
            if pa.types.is_string(column.type) and self.nulls[column.name] < self.rows:
                lows[column.name], highs[column.name] = LOWEST, HIGHEST
        return {
            "numRecords": self.rows,
            "minValues": lows,
            "maxValues": highs,
            "nullCount": self.nulls,
            "tightBounds": False,
        }


def _has_bounds(kind: pa.DataType) -> bool:
    tests = (pa.types.is_integer, pa.types.is_floating, pa.types.is_date, pa.types.is_timestamp)
    return any(test(kind) for test in tests)


def _value(value: Any, *, up: bool = False) -> Any:
    """A number, or a time in whole milliseconds, as the log has it."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        widest = sys.float_info.max if up else -sys.float_info.max
        return value if math.isfinite(value) else widest
    if not isinstance(value, datetime):
        return value.isoformat() if isinstance(value, date) else value
    if up and value.microsecond % 1000:
        value += timedelta(milliseconds=1)
    return f"{value.replace(tzinfo=None).isoformat(timespec='milliseconds')}Z"
