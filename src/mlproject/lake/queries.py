"""What tables hold, without Spark: by SQL of DataFusion, and by what the log says of their rows."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import pairwise
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
from deltalake import QueryBuilder

from mlproject.errors import UserError
from mlproject.lake.commits import OPERATION, log_entry
from mlproject.lake.location import locate
from mlproject.lake.schemas import SCHEMAS, TIME, require_columns
from mlproject.lake.snapshots import (
    Snapshot,
    active_files,
    is_table,
    logged_files,
    open_table,
    unreadable,
)
from mlproject.storage.object_storage import one_line

_NAMES = {  # of types. Source: DataFusion, arrow_cast
    TIME: 'Timestamp(Microsecond, Some("UTC"))',
    pa.string(): "Utf8",
    pa.int32(): "Int32",
    pa.int64(): "Int64",
    pa.float64(): "Float64",
    pa.list_(pa.string()): "List(Utf8)",
}
_FIRST_FILES = pa.schema(
    [SCHEMAS["images"].field(name) for name in ("image_id", "ingested_at", "path", "size_bytes")]
)
_READERS = 16  # commits read at a time: each is a request
# Rows of `images` whose ids are joined at once, which takes about 1 GB.
JOINED_ROWS = 4_000_000


class MissingFilesError(UserError):
    """Data files of a pinned version are gone: an erasure or maintenance has removed them."""


def query(lake: str, sql: str, tables: Sequence[str] = (), **pinned: Snapshot | None) -> pa.Table:
    """The rows that a query finds in tables; one that is absent has no rows.

    Args:
        lake: Folder or URI of the tables.
        sql: The query, in DataFusion's dialect.
        tables: Names in it that are tables of the lake, read at their newest versions.
        pinned: Names in it, some of `tables` or others, and the versions that they stand for. None
            = the newest version of one of `tables`; of another name no rows of that table.

    Raises:
        MissingFilesError: A pinned version cannot be read, and the table has a newer one.
        UserError: A table has other columns than this project writes, or cannot be read.
    """
    while True:
        builder, absent, opened = QueryBuilder(), [], dict[str, int]()
        for name in dict.fromkeys([*tables, *pinned]):
            at = pinned.get(name)
            table = at.table if at else name
            path = f"{lake}/{table}"
            if (at is None and name not in tables) or not is_table(path):
                absent.append(f"{name} AS ({_no_rows(SCHEMAS[table])})")
                continue
            found = open_table(path, at.version if at else None)
            require_columns(pa.schema(found.schema().to_arrow()), table, path)
            builder.register(name, found)
            if at is None:
                opened[path] = found.version()
        whole = f"WITH {', '.join(absent)} {sql}" if absent else sql
        try:
            return _result(builder, whole, f"Lake {lake!r}")
        except UserError as error:
            # An erasure removes files of the version before: then the newest one is read.
            if any(at and _is_outdated(at.path, at.version) for at in pinned.values()):
                raise MissingFilesError(str(error)) from error
            if not any(_is_outdated(path, version) for path, version in opened.items()):
                raise


def in_ranges(
    lake: str, sql: Callable[[str], str], images: Snapshot, **pinned: Snapshot | None
) -> Iterator[pa.Table]:
    """The rows of a query that joins by ids, of which not all are held at once.

    `sql` gives the query of the ids for which a condition on `image_id` holds. It is asked once for
    each range of ids. The rest is as in `query`, which it may raise.
    """
    rows = sum(file.rows for file in active_files(open_table(images.path, images.version)))
    count = 1 + rows // JOINED_ROWS  # the ids are hexadecimal digits of hashes: they divide evenly
    bounds = [f"image_id >= '{number * 16**8 // count:08x}'" for number in range(1, count)]
    for lower, upper in pairwise(["true", *bounds, "false"]):
        yield query(lake, sql(f"({lower} AND NOT {upper})"), (), images=images, **pinned)


def summed(tables: Iterable[pa.Table], keys: Sequence[str] = ()) -> pa.Table:
    """The rows of tables put together: one for each value of the keys, other columns added up."""
    rows = pa.concat_tables(tables)
    counts = [name for name in rows.column_names if name not in keys]
    sums = rows.group_by(list(keys)).aggregate([(name, "sum") for name in counts])
    return sums.rename_columns([*keys, *counts])


def foreign(table: str, columns: Sequence[str]) -> pa.Table:
    """Those of the columns that a Delta table has which is none of ours.

    Raises:
        UserError: There is no table at the folder or URI `table`, or it cannot be read.
    """
    path = locate(table)
    if not is_table(path):
        raise UserError(f"{table!r} is neither a CSV file nor a Delta table")
    found = open_table(path, advice="Name a table that can be read")
    names = [field.name for field in found.schema().fields if field.name in columns] or ["1"]
    builder = QueryBuilder().register("t", found)
    return _result(builder, f"SELECT {', '.join(names)} FROM t", f"Table {table!r}")


def quoted(text: str) -> str:
    """A string literal of DataFusion."""
    return "'" + text.replace("'", "''") + "'"


def instant(at: datetime) -> str:
    """A time literal of DataFusion."""
    return f"arrow_cast('{at.isoformat()}', '{_NAMES[TIME]}')"


def _result(builder: QueryBuilder, sql: str, what: str) -> pa.Table:
    try:
        rows = pa.table(builder.execute(sql).read_all())
    except Exception as error:  # deltalake raises this very class for errors of DataFusion
        raise unreadable(f"{what} cannot be read: {one_line(error)}", error) from error
    return rows.cast(pa.schema([_without_views(field) for field in rows.schema]))


def _is_outdated(path: str, version: int) -> bool:
    return bool(open_table(path).version() != version)


def _no_rows(columns: pa.Schema) -> str:
    kinds = {field.name: _NAMES.get(field.type, "Binary") for field in columns}
    nulls = (f"arrow_cast(NULL, '{kind}') AS {name}" for name, kind in kinds.items())
    return f"SELECT {', '.join(nulls)} WHERE false"


def _without_views(field: pa.Field) -> pa.Field:
    """A column of DataFusion's view types as one that pyarrow can join and sort."""
    if pa.types.is_string_view(field.type):
        return pa.field(field.name, pa.string())
    if pa.types.is_binary_view(field.type):
        return pa.field(field.name, pa.binary())
    if pa.types.is_list(field.type) and pa.types.is_string_view(field.type.value_type):
        return pa.field(field.name, pa.list_(pa.string()))
    return field


@dataclass(frozen=True, slots=True)
class Appended:
    """One data file of new rows, as the log has it."""

    operation: str
    """What committed it, such as `ingest` or `score:MODEL_ID`; empty = another program."""
    partition_values: Mapping[str, str]
    """Value of each partition column."""
    statistics: Mapping[str, Any]
    """Source: Delta protocol, "Per-file Statistics"."""

    @property
    def rows(self) -> int:
        """Its rows."""
        return int(self.statistics["numRecords"])

    def nulls(self, column: str) -> int | None:
        """Rows without a value in a column; None = not known."""
        found: int | None = self.statistics.get("nullCount", {}).get(column)
        return found

    def least(self, column: str) -> Any:
        """The lower bound of a column; None = not known."""
        return self.statistics.get("minValues", {}).get(column)


def appended(found: Snapshot, since: int) -> list[Appended] | None:
    """The data files of the rows that a version of a table has and an earlier one has not.

    Files that were only put together or described anew hold no new rows: the protocol marks them.
    Source: Delta protocol, "Add File and Remove File", dataChange.

    Returns:
        None where rows were taken out or replaced since, or the log does not tell: its entries are
        gone, or have no statistics.
    """
    if since > found.version:
        return None
    with ThreadPoolExecutor(_READERS) as pool:
        commits = pool.map(lambda at: _commit(found.path, at), range(since + 1, found.version + 1))
        files: list[Appended] = []
        for actions in commits:
            if actions is None or any(map(_takes_rows, actions)):
                return None
            infos = (action["commitInfo"] for action in actions if "commitInfo" in action)
            operation = next((info.get(OPERATION, "") for info in infos), "")
            adds = (action["add"] for action in actions if "add" in action)
            for add in (add for add in adds if add["dataChange"]):
                if not add.get("stats"):
                    return None
                statistics = json.loads(add["stats"])
                files.append(Appended(operation, add["partitionValues"], statistics))
    return files


def first_files(rows: str) -> str:
    """A query of rows of `images`: one row an image, of the first of its files in these rows."""
    return f"""SELECT image_id, min(ingested_at) AS ingested_at,
        first_value(path ORDER BY ingested_at, path) AS path,
        coalesce(max(size_bytes), 0) AS size_bytes
        FROM ({rows}) AS rows GROUP BY image_id"""


def first_ingest(files: Sequence[Appended]) -> datetime | None:
    """A time at or before which none of the rows in files of `images`, at least one, was ingested.

    None = not known.
    """
    times = [file.least("ingested_at") for file in files]
    return None if None in times else min(map(datetime.fromisoformat, times))


def new_images(images: Snapshot, since: int) -> pa.Table | None:
    """The images that a version of table `images` has and an earlier one has not.

    Returns:
        image_id, ingested_at, path and size_bytes as `first_files` gives them. None where the log
        does not tell, or the earlier version cannot be read any more.
    """
    files = appended(images, since)
    if not files:
        return None if files is None else _FIRST_FILES.empty_table()
    began = first_ingest(files)
    if began is None:
        return None
    # The earlier version may have rows of such times too: its clock may have been ahead.
    rows = f"SELECT * FROM images WHERE ingested_at >= {instant(began)}"
    sql = f"""SELECT new.* FROM ({first_files(rows)}) AS new
        LEFT ANTI JOIN before ON new.image_id = before.image_id"""
    try:
        return query(images.lake, sql, images=images, before=replace(images, version=since))
    except UserError:
        return None


def filled_at(
    found: Snapshot, column: str, since: datetime | None = None
) -> list[tuple[datetime, int]]:
    """The first time in a column, and the rows, of each data file with later times than `since`.

    Empty where the log does not have the times of all files.
    """
    adds = pa.table(open_table(found.path, found.version).get_add_actions(flatten=True))
    names = (f"min.{column}", f"max.{column}", "num_records")
    if not set(names) <= set(adds.column_names) or any(adds[name].null_count for name in names):
        return []
    rows = zip(*(adds[name].to_pylist() for name in names), strict=True)
    return [(first, count) for first, last, count in rows if since is None or last >= since]


def plain_files(found: Snapshot) -> list[dict[str, Any]] | None:
    """As `logged_files`, of a version whose rows are those of its Parquet files; else None.

    A table has no deletion vectors, mapped columns or files of other tables where the protocol asks
    nothing of its readers. Source: Delta protocol, "Reader Version Requirements".
    """
    table = open_table(found.path, found.version)
    if table.protocol().min_reader_version > 1:
        return None
    files = [{**file, "path": unquote(file["path"])} for file in logged_files(table)]
    return None if any("://" in file["path"] for file in files) else files


def _takes_rows(action: Mapping[str, Any]) -> bool:
    removed = action.get("remove")
    is_masked = "add" in action and action["add"].get("deletionVector") is not None
    return is_masked or (removed is not None and removed["dataChange"])


def _commit(path: str, version: int) -> list[dict[str, Any]] | None:
    """The actions of one commit; None = its entry is gone, or cannot be read."""
    try:
        lines = log_entry(path, version).splitlines()
        return [json.loads(line) for line in lines if line.strip()]
    except (OSError, ValueError):
        return None
