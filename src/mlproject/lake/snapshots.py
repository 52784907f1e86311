"""Pinned versions of tables: what is read, and from where the next commit is computed."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import pyarrow as pa
from deltalake import DeltaTable, Schema
from deltalake.exceptions import DeltaError

from mlproject.errors import MachineError, MlprojectError, UserError
from mlproject.lake.location import is_local, warn_if_commits_get_lost
from mlproject.lake.schemas import ADDED, PARTITIONS, SCHEMAS, SETTINGS, no_table, require_columns
from mlproject.storage.object_storage import (
    delta_options,
    is_broken,
    one_line,
    spark_options,
)

if TYPE_CHECKING:  # it takes a second to import
    from pyspark.sql import DataFrame, SparkSession

# Application transactions of rewrites, beside those of fillers (decision 3).
REWRITE = "rewrite"  # moved by every rewrite: two at once cannot both succeed
ERASE = "erase"  # moved by every erasure: what was begun before it is not committed after it

_RESTORE = "Restore its folder, or remove it whole to read the files of the source again"
_INTERVAL = {"delta.checkpointInterval": "10"}  # commits, as Spark's; deltalake's own is 100
# Features whose data files need columns or values that we do not write.
# Source: Delta protocol, "Valid Feature Names in Table Features".
_REFUSED_FEATURES = {
    "rowTracking": "row tracking",
    "identityColumns": "identity columns",
    "clustering": "liquid clustering",
}


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One version of one table, and how often it was filled and erased up to there."""

    table: str
    """Name of the table, of `schemas.TABLES`."""
    path: str
    """Where the table lies: a path or URI."""
    table_id: str
    """Delta's id of the table, another one when it was removed and made anew."""
    version: int
    """The Delta version that was read, from 0."""
    filler: str
    """What fills the table, Delta's transaction app id; empty where it is only read."""
    fills: int
    """The number of the filler's last append in this version; -1 before its first."""
    erasures: int
    """The version that the last erasure committed; -1 = there was none."""

    @property
    def lake(self) -> str:
        """The folder or URI of the lake."""
        return self.path.removesuffix(f"/{self.table}")

    def read(self, spark: "SparkSession") -> "DataFrame":
        """The rows of this very version."""
        reader = spark.read.format("delta").option("versionAsOf", self.version)
        return reader.options(**spark_options(self.path)).load(self.path)

    def read_files(self, spark: "SparkSession", names: Sequence[str]) -> "DataFrame":
        """The rows of some of its data files, see `plain_files`; in a new session 2 s faster."""
        from pyspark.sql.pandas.types import from_arrow_schema

        reader = spark.read.schema(from_arrow_schema(SCHEMAS[self.table]))
        # Else Spark takes [ and * in a folder's name for a pattern. Source: Spark, DataSource
        reader = reader.option("__globPaths__", "false").options(**spark_options(self.path))
        return reader.parquet(*(f"{self.path}/{name}" for name in names))


@dataclass(frozen=True, slots=True)
class ActiveFile:
    """A data file that a version of a table names."""

    path: str
    """Its path below the table's folder, as the file system has it."""
    size_bytes: int
    """Its size."""
    rows: int
    """Its rows."""
    partition_values: dict[str, str]
    """Value of each partition column."""


def newest(lake: str, table: str) -> Snapshot | None:
    """The newest version of a table, to be read; None when there is no table.

    Raises:
        UserError: It has other columns than this project writes, or cannot be read.
    """
    path = f"{lake}/{table}"
    return _pinned(open_table(path), table, path) if is_table(path) else None


def required(lake: str, table: str) -> Snapshot:
    """The newest version of a table, to be read.

    Raises:
        UserError: As `newest`; or there is no table yet.
    """
    found = newest(lake, table)
    if found is None:
        raise no_table(f"{lake}/{table}", table)
    return found


def to_append(lake: str, table: str, filler: str) -> Snapshot:
    """The newest version of a table, to be filled by `filler`; the table is made when absent.

    Raises:
        UserError: As `newest`; or other files lie there, or it has features that are not written.
        MachineError: It cannot be written.
    """
    path = f"{lake}/{table}"
    create(path, table)
    found = open_table(path)
    require_writable(found, path)
    while later := _missing_columns(found, table):
        try:
            found.alter.add_columns(Schema.from_arrow(pa.schema(later)).fields)
        except (DeltaError, OSError) as error:
            if open_table(path).version() == found.version():  # else another commit came first
                raise cannot_be_written(path, error) from error
        found = open_table(path)
    return _pinned(found, table, path, filler)


def _missing_columns(found: DeltaTable, table: str) -> list[pa.Field]:
    """Columns of this release that a table of an older one lacks."""
    there = {field.name for field in found.schema().fields}
    return [SCHEMAS[table].field(name) for name in ADDED.get(table, ()) if name not in there]


def rows(spark: "SparkSession", lake: str, table: str, at: Snapshot | None = None) -> "DataFrame":
    """A table's rows at its newest version or at the one given, none when there is no table yet."""
    from pyspark.sql.pandas.types import from_arrow_schema

    found = at or newest(lake, table)
    if found is None:
        return spark.createDataFrame([], from_arrow_schema(SCHEMAS[table]))
    return found.read(spark)


def create(path: str, table: str) -> None:
    """Makes a table without rows where none is; of two who do so at once one does.

    Raises:
        UserError: Other files lie there.
        MachineError: It cannot be written.
    """
    files = {file.name for file in Path(path).glob("*")} if is_local(path) else set()
    if files and "_delta_log" not in files:
        other = f"Table {table!r} cannot be created in {path!r}, a folder of other files"
        raise UserError(f"{other}. Name another lake: -P lake=FOLDER")
    if is_table(path):
        return
    columns, partitions = Schema.from_arrow(SCHEMAS[table]), PARTITIONS.get(table)
    settings = {**_INTERVAL, **SETTINGS.get(table, {})}
    options = {"partition_by": partitions, "configuration": settings, "mode": "ignore"}
    try:
        if table == "images":  # the first table of a lake
            warn_if_commits_get_lost(path)
        DeltaTable.create(path, columns, storage_options=delta_options(path), **options)
    except (DeltaError, OSError) as error:
        if not is_table(path):  # else somebody else has just made it
            raise cannot_be_written(path, error) from error


def is_table(path: str) -> bool:
    """Whether a Delta table lies at a path or URI; UserError if its folder cannot be read."""
    try:
        return bool(DeltaTable.is_deltatable(path, delta_options(path)))
    except (DeltaError, OSError) as error:
        raise unreadable(f"Folder {path!r} cannot be read ({one_line(error)})", error) from error


def open_table(path: str, version: int | None = None, advice: str = _RESTORE) -> DeltaTable:
    """A table of delta-rs, at its newest version or at the one given; UserError if unreadable."""
    try:
        return DeltaTable(path, version=version, storage_options=delta_options(path))
    except DeltaError as error:
        raise UserError(
            f"Table {path!r} cannot be read: its log is incomplete or not supported "
            f"({one_line(error)}). {advice}"
        ) from error
    except OSError as error:
        raise unreadable(f"Table {path!r} cannot be read ({one_line(error)})", error) from error


def file_columns(table: DeltaTable) -> pa.Schema:
    """The columns that stand in a table's data files: all but those of its partitions."""
    columns, partitions = table.schema().to_arrow(), table.metadata().partition_columns
    return pa.schema([field for field in pa.schema(columns) if field.name not in partitions])


def logged_files(table: DeltaTable) -> list[dict[str, Any]]:
    """The rows of `DeltaTable.get_add_actions()`: what the log has of each data file."""
    return list(pa.table(table.get_add_actions()).to_pylist())


def active_files(table: DeltaTable) -> list[ActiveFile]:
    """The data files that a version of a table names."""
    return [
        ActiveFile(
            unquote(row["path"]),
            row["size_bytes"],
            row["num_records"] or 0,
            {name: str(value) for name, value in (row.get("partition") or {}).items()},
        )
        for row in logged_files(table)
    ]


def counter(found: DeltaTable, app_id: str) -> int:
    """The last number of an application transaction in a version of a table; -1 = none."""
    number = found.transaction_version(app_id)
    return -1 if number is None else int(number)


def last_erasure(path: str) -> int:
    """The version that the last erasure of a table committed; -1 = there was none."""
    return counter(open_table(path), ERASE)


class NotCommittedError(MachineError):
    """A table cannot be written, such as on a full disk, and it is known that nothing was."""


def cannot_be_written(path: str, error: Exception) -> NotCommittedError:
    """The error that a table cannot be written."""
    return NotCommittedError(
        f"Table {path!r} cannot be written ({one_line(error)}). "
        "What was committed stays. Once this is fixed, the next run continues"
    )


@contextmanager
def errors_in_one_line(path: str) -> Iterator[None]:
    """Raises errors of delta-rs, pyarrow and the disk as a MachineError: it cannot be written."""
    try:
        yield
    except (DeltaError, OSError, pa.ArrowException) as error:
        raise MachineError(str(cannot_be_written(path, error))) from error


def unreadable(message: str, error: Exception) -> MlprojectError:
    """The error that something cannot be read; it is the machine's where a server is away."""
    return MachineError(f"{message}. Run it again") if is_broken(error) else UserError(message)


def _pinned(found: DeltaTable, table: str, path: str, filler: str = "") -> Snapshot:
    require_columns(pa.schema(found.schema().to_arrow()), table, path)
    return Snapshot(
        table,
        path,
        str(found.metadata().id),
        found.version(),
        filler,
        counter(found, filler),
        counter(found, ERASE),
    )


def require_writable(found: DeltaTable, path: str) -> None:
    """Raises UserError for a table with features whose data files this project does not write."""
    there = set(found.protocol().writer_features or ()) & set(_REFUSED_FEATURES)
    names = [_REFUSED_FEATURES[name] for name in sorted(there)]
    if found.metadata().configuration.get("delta.columnMapping.mode", "none") != "none":
        names.append("column mapping")
    if names:
        raise UserError(
            f"Table {path!r} has {', '.join(names)}, which mlproject does not write. "
            "Name another lake: -P lake=FOLDER"
        )


def require_rewritable(found: DeltaTable, path: str) -> None:
    """As `require_writable`, and for one with deletion vectors: rewrites do not read them."""
    require_writable(found, path)
    if pa.table(found.deletion_vectors()).num_rows:
        quoted = path.replace("`", "``")
        raise UserError(
            f"Table {path!r} has deletion vectors, which mlproject does not rewrite. Purge them "
            f"once in Spark: REORG TABLE delta.`{quoted}` APPLY (PURGE)"
        )
