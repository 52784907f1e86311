"""Writes data files of our tables: Parquet, with what Delta's log tells of each."""

import contextlib
import time
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from itertools import chain
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyarrow import fs

MEASURED = ["size_bytes", "modified_at", "width", "height", "ingested_at", "at"]
PARQUET: dict[str, Any] = {
    "compression": "none",
    "use_dictionary": ["format", "label", "error"],  # columns of few different words
    "write_statistics": MEASURED,
    "store_schema": False,
}


@dataclass(frozen=True, slots=True)
class DataFile:
    """A data file that no commit names yet."""

    name: str
    """Its name in the table's folder."""
    size_bytes: int
    """Its size."""
    written_ms: int
    """When it was written, milliseconds since 1970."""
    rows: int
    """Its rows."""
    image_bytes: int
    """Bytes of the image files that its rows tell of, where they tell."""
    statistics: dict[str, Any]
    """As Delta's log has them. Source: Delta protocol, "Per-file Statistics"."""


def write(
    tables: Iterable[pa.Table], columns: pa.Schema, filesystem: fs.FileSystem, folder: str
) -> DataFile | None:
    """Writes one data file, a row group a table; None when there are no rows.

    Photos are compressed already, so nothing is. No path and no hash stands in the statistics:
    Delta's log keeps them longer than the rows.

    Args:
        tables: Tables of bounded bytes, each held once.
        columns: Their columns.
        filesystem: Where the table lies.
        folder: The table's folder there.
    """
    filled = (table for table in tables if table.num_rows)
    first = next(filled, None)
    if first is None:
        return None
    name = f"part-{uuid.uuid4()}.parquet"
    place = f"{folder}/{name}"
    seen = _Statistics(columns)
    try:
        with filesystem.open_output_stream(place) as out:
            with pq.ParquetWriter(out, columns, **PARQUET) as writer:
                for table in chain((first,), filled):
                    writer.write_table(table, row_group_size=table.num_rows)
                    seen.add(table)
            size = out.tell()
    except BaseException:  # a stop too must leave no half file
        with contextlib.suppress(OSError):  # a full disk is freed of it
            filesystem.delete_file(place)
        raise
    return DataFile(name, size, int(time.time() * 1000), seen.rows, seen.image_bytes, seen.told())


class _Statistics:
    """Rows, nulls of each column, and the range of those with an order."""

    def __init__(self, columns: pa.Schema) -> None:
        self.rows = self.image_bytes = 0
        self._nulls = dict.fromkeys(columns.names, 0)
        self._least: dict[str, Any] = {}
        self._most: dict[str, Any] = {}

    def add(self, table: pa.Table) -> None:
        self.rows += table.num_rows
        if "size_bytes" in self._nulls:
            self.image_bytes += pc.sum(table["size_bytes"]).as_py() or 0
        for name in self._nulls:
            self._nulls[name] += table[name].null_count
        for name in set(MEASURED) & set(self._nulls):
            least, most = pc.min_max(table[name]).as_py().values()
            if least is not None:
                self._least[name] = min(least, self._least.get(name, least))
                self._most[name] = max(most, self._most.get(name, most))

    def told(self) -> dict[str, Any]:
        return {
            "numRecords": self.rows,
            "minValues": {name: _word(least) for name, least in self._least.items()},
            "maxValues": {name: _word(most, up=True) for name, most in self._most.items()},
            "nullCount": self._nulls,
        }


def _word(value: Any, *, up: bool = False) -> Any:
    """A number, or a time in whole milliseconds, as Delta's log has it."""
    if isinstance(value, int):
        return value
    if up and value.microsecond % 1000:
        value += timedelta(milliseconds=1)
    return f"{value.replace(tzinfo=None).isoformat(timespec='milliseconds')}Z"
