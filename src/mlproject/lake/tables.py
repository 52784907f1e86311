"""The Delta tables of a lake without Spark: queries into Arrow, and commits of rows and data files.

What is small, such as listings, hashes and the log, is read and compared here, in this process.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime

import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, QueryBuilder, Schema, Transaction
from deltalake.exceptions import DeltaError
from deltalake.transaction import AddAction

from mlproject.errors import UserError
from mlproject.integrations.object_storage import open_path
from mlproject.lake import data_files
from mlproject.lake.data_files import DataFile
from mlproject.lake.location import (
    ADDED,
    SCHEMAS,
    Snapshot,
    create,
    in_a_line,
    is_table,
    locate,
    require_columns,
)

RESTORE = "Restore its folder, or remove it whole to read the files of the source again"
TIME = 'Timestamp(Microsecond, Some("UTC"))'  # DataFusion's word for the type of our times
# What delta-rs says when another commit came first. Source: delta-rs, CommitConflictError
LOST = ("oncurrent transaction", "changed since last commit")


def snapshot(lake: str, table: str, filler: str) -> Snapshot:
    """The newest version of a table, which is made when it is not there yet.

    Args:
        lake: As `lakes.locate` gives it.
        table: One of ours.
        filler: Who fills it.

    Raises:
        UserError: It has other columns than this project writes, or cannot be read.
    """
    create(f"{lake}/{table}", table)
    found = _open(f"{lake}/{table}")
    there = {field.name for field in found.schema().fields}
    later = [name for name in ADDED.get(table, ()) if name not in there]
    if later:
        columns = Schema.from_arrow(SCHEMAS[table]).fields
        try:
            found.alter.add_columns([field for field in columns if field.name in later])
        except (DeltaError, OSError) as error:
            raise UserError(_why_not(found.table_uri, error)) from error
        found = _open(found.table_uri)
    return _pinned(found, table, f"{lake}/{table}", filler)


def newest(lake: str, table: str, filler: str = "") -> Snapshot | None:
    """The newest version of a table for who reads it; None when there is no table.

    Args:
        lake: As `lakes.locate` gives it.
        table: One of ours.
        filler: As `snapshot`.

    Raises:
        UserError: As `snapshot`.
    """
    path = f"{lake}/{table}"
    return _pinned(_open(path), table, path, filler) if is_table(path) else None


def query(lake: str, sql: str, tables: Sequence[str], at: Snapshot | None = None) -> pa.Table:
    """What a query finds in the newest versions of tables; one that is not there has no rows.

    Args:
        lake: As `lakes.locate` gives it.
        sql: In the words of DataFusion.
        tables: The names in it that are tables of the lake.
        at: The version of one of them that is read in place of the newest.

    Raises:
        UserError: A table has other columns than this project writes, or cannot be read.
    """
    builder, absent = QueryBuilder(), []
    for table in tables:
        path = f"{lake}/{table}"
        if not is_table(path):
            absent.append(f"{table} AS ({_no_rows(SCHEMAS[table])})")
            continue
        found = _open(path, at.version if at and at.table == table else None)
        require_columns(pa.schema(found.schema().to_arrow()), table, path)
        builder.register(table, found)
    if absent:
        sql = f"WITH {', '.join(absent)} {sql}"
    return _found(builder, sql, f"Lake {lake!r}")


def foreign(table: str, columns: Sequence[str]) -> pa.Table:
    """Columns of a Delta table that is none of ours.

    Args:
        table: Its folder or URI.
        columns: Names, of which those are read that it has.

    Raises:
        UserError: There is none, or it cannot be read.
    """
    path = locate(table)
    if not is_table(path):
        raise UserError(f"{table!r} is no CSV file and no Delta table")
    found = _open(path, advice="Name a table that can be read")
    names = [field.name for field in found.schema().fields if field.name in columns] or ["1"]
    builder = QueryBuilder().register("t", found)
    return _found(builder, f"SELECT {', '.join(names)} FROM t", f"Table {table!r}")


def append(rows: pa.Table, since: Snapshot) -> Snapshot | None:
    """Appends rows that were computed from a snapshot, in one commit, or not at all.

    Returns:
        As `commit`.

    Raises:
        UserError: As `commit`.
    """
    filesystem, folder = open_path(since.path)
    try:
        written = data_files.write([rows], SCHEMAS[since.table], filesystem, folder)
    except OSError as error:
        raise UserError(_why_not(since.path, error)) from error
    return commit([written], since) if written else since


def commit(files: Iterable[DataFile], since: Snapshot) -> Snapshot | None:
    """Adds data files that were written from what a snapshot said, in one commit, or not at all.

    A compare-and-set, as `tables.append` is: this commit moves the filler's counter in the table's
    log from `since.fills` to the next number, and it fails when another has moved it since.
    Source: Delta protocol, "Transaction Identifiers"; delta-rs, ConflictChecker.

    Returns:
        The version that holds the files, from which the filler's next commit may be computed; or
        None when another commit of the same filler came first: find what is pending again.

    Raises:
        UserError: The table cannot be written, as on a full disk.
    """
    added = [
        AddAction(
            file.name, file.size_bytes, {}, file.written_ms, True, json.dumps(file.statistics)
        )
        for file in files
    ]
    found = _open(since.path, since.version)
    try:
        found.create_write_transaction(
            added, "append", found.schema(), commit_properties=_next(since)
        )
    except (DeltaError, OSError) as error:
        if any(words in str(error) for words in LOST):
            return None
        raise UserError(_why_not(since.path, error)) from error
    number = since.fills + 1
    return replace(since, version=version_of(since.path, since.filler, number), fills=number)


def version_of(path: str, filler: str, number: int) -> int:
    """The newest version of a table in which a filler's last commit has this number.

    Not the newest of all: that may have the filler's next commit already, made by another process
    meanwhile, of which whoever computes from ours knows nothing.
    """
    found = _open(path)
    while found.transaction_version(filler) != number:
        found = _open(path, found.version() - 1)
    return int(found.version())


def quoted(words: str) -> str:
    """A string in the words of DataFusion."""
    return "'" + words.replace("'", "''") + "'"


def instant(at: datetime) -> str:
    """A time in the words of DataFusion."""
    return f"arrow_cast('{at.isoformat()}', '{TIME}')"


def file_sizes(path: str) -> list[int]:
    """Bytes of each of a table's files, none when there is no table."""
    if not is_table(path):
        return []
    sizes = pa.table(_open(path).get_add_actions(flatten=True))["size_bytes"]
    return list(map(int, sizes.to_pylist()))


def _pinned(found: DeltaTable, table: str, path: str, filler: str) -> Snapshot:
    require_columns(pa.schema(found.schema().to_arrow()), table, path)
    fills = found.transaction_version(filler)
    return Snapshot(table, path, found.version(), filler, -1 if fills is None else fills)


def _open(path: str, version: int | None = None, advice: str = RESTORE) -> DeltaTable:
    try:
        return DeltaTable(path, version=version)
    except DeltaError as error:
        raise UserError(
            f"Table {path!r} cannot be read: its log lacks a part or is of another kind "
            f"({in_a_line(error)}). {advice}"
        ) from error
    except OSError as error:
        raise UserError(f"Table {path!r} cannot be read ({in_a_line(error)})") from error


def _found(builder: QueryBuilder, sql: str, what: str) -> pa.Table:
    try:
        rows = pa.table(builder.execute(sql).read_all())
    except Exception as error:  # deltalake raises this very class for what DataFusion says
        raise UserError(f"{what} cannot be read: {in_a_line(error)}") from error
    return rows.cast(pa.schema([_plain(field) for field in rows.schema]))


def _why_not(path: str, error: Exception) -> str:
    return (
        f"Table {path!r} cannot be written ({in_a_line(error)}). "
        "What was committed stands; run again when that is mended"
    )


def _next(since: Snapshot) -> CommitProperties:
    return CommitProperties(app_transactions=[Transaction(since.filler, since.fills + 1)])


def _no_rows(columns: pa.Schema) -> str:
    nulls = (f"arrow_cast(NULL, '{_word(field.type)}') AS {field.name}" for field in columns)
    return f"SELECT {', '.join(nulls)} WHERE false"


def _word(kind: pa.DataType) -> str:
    """DataFusion's word for a type. Source: DataFusion, arrow_cast."""
    if pa.types.is_timestamp(kind):
        return TIME
    return {"string": "Utf8", "int32": "Int32", "int64": "Int64", "double": "Float64"}.get(
        str(kind), "Binary"
    )


def _plain(field: pa.Field) -> pa.Field:
    """DataFusion's views as the types that pyarrow can join and sort."""
    if pa.types.is_string_view(field.type):
        return pa.field(field.name, pa.string())
    if pa.types.is_binary_view(field.type):
        return pa.field(field.name, pa.binary())
    if pa.types.is_list(field.type) and pa.types.is_string_view(field.type.value_type):
        return pa.field(field.name, pa.list_(pa.string()))
    return field
