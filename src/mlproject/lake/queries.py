"""Queries of tables without Spark: SQL of DataFusion into Arrow, by delta-rs."""

from collections.abc import Sequence
from datetime import datetime

import pyarrow as pa
from deltalake import QueryBuilder

from mlproject.errors import UserError
from mlproject.lake.location import locate
from mlproject.lake.schemas import SCHEMAS, TIME, require_columns
from mlproject.lake.snapshots import Snapshot, is_table, open_table, unreadable
from mlproject.storage.object_storage import one_line

_NAMES = {  # of types. Source: DataFusion, arrow_cast
    TIME: 'Timestamp(Microsecond, Some("UTC"))',
    pa.string(): "Utf8",
    pa.int32(): "Int32",
    pa.int64(): "Int64",
    pa.float64(): "Float64",
}


def query(lake: str, sql: str, tables: Sequence[str], *pinned: Snapshot | None) -> pa.Table:
    """The rows that a query finds in the newest versions of tables; an absent one has no rows.

    `sql` is in DataFusion's dialect, and `tables` are the names in it that are tables of the lake.
    `pinned` are versions of some of them that are read in place of the newest; None = none.

    Raises:
        UserError: A table has other columns than this project writes, or cannot be read.
    """
    versions = {at.table: at.version for at in pinned if at}
    while True:
        builder, absent, opened = QueryBuilder(), [], dict[str, int]()
        for table in tables:
            path = f"{lake}/{table}"
            if not is_table(path):
                absent.append(f"{table} AS ({_no_rows(SCHEMAS[table])})")
                continue
            version = versions.get(table)
            found = open_table(path, version)
            require_columns(pa.schema(found.schema().to_arrow()), table, path)
            builder.register(table, found)
            if version is None:
                opened[path] = found.version()
        whole = f"WITH {', '.join(absent)} {sql}" if absent else sql
        try:
            return _result(builder, whole, f"Lake {lake!r}")
        except UserError:
            # An erasure removes files of the version before: then the newest one is read.
            if all(open_table(path).version() == version for path, version in opened.items()):
                raise


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
