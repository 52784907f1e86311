"""The Delta tables of a lake: their schemas, pinned reads, and appends that cannot double.

A *lake* is one folder or URI; `LAKE/images`, `LAKE/predictions` and `LAKE/rollouts` lie in it.
"""

import contextlib
import json
import os
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar, cast

import filelock
from delta import exceptions
from delta.tables import DeltaTable
from pyspark.errors import AnalysisException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.types import StructType

from mlproject.errors import UserError
from mlproject.files import local_path

SCHEMAS = {
    "images": (
        "path string, image_id string, size_bytes long, modified_at timestamp, format string, "
        "width int, height int, label string, content binary, thumbnail binary, error string, "
        "ingested_at timestamp"
    ),
    # What was seen at a path since its row in `images`; made when there is something to tell.
    "files": (
        "path string, size_bytes long, modified_at timestamp, image_id string, state string, "
        "at timestamp"
    ),
    "predictions": (
        "image_id string, model_name string, model_version int, label string, score double, "
        "top_labels array<string>, top_scores array<double>, error string, model_id string, "
        "run_id string, images_version long, scored_at timestamp"
    ),
    "rollouts": (
        "pointer string, model_name string, model_version int, model_id string, state string, "
        "coverage double, images_version long, at timestamp"
    ),
    "erased": "image_id string, size_bytes long, at timestamp",
}
MADE_BY = {
    "images": "ingest -P source=FOLDER",
    "files": "ingest -P source=FOLDER",
    "predictions": "score -P model=models:/photos@champion",
    "rollouts": "rescore -P pointers=models:/photos@champion",
    "erased": "erase -P file=LIST",
}
PARTITIONS = {"predictions": ("model_name", "model_version")}

# Another writer was faster: what was computed is to be computed again.
# Delta's Python classes of these share no base but PySpark's own.
LOST = (
    exceptions.ConcurrentTransactionException,
    exceptions.ConcurrentAppendException,
    exceptions.ConcurrentDeleteDeleteException,
    exceptions.ConcurrentDeleteReadException,
    exceptions.ConcurrentWriteException,
    exceptions.MetadataChangedException,
    exceptions.ProtocolChangedException,
)

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One version of one table, and how often a filler has filled it up to there."""

    table: str
    """Name of the table: `images`, `predictions` or `rollouts`."""
    path: str
    """Where the table lies: a path or URI."""
    version: int
    """The Delta version that was read, from 0."""
    filler: str
    """What fills the table; Delta's transaction app id."""
    fills: int
    """The number of the filler's last append in this version; -1 before its first."""

    def read(self, spark: SparkSession) -> DataFrame:
        """The rows of this very version."""
        reader = spark.read.format("delta").option("versionAsOf", self.version)
        return reader.load(self.path)


def locate(lake: str) -> str:
    """The lake as an absolute path, or as the URI it is."""
    if not is_local(lake):
        return lake.rstrip("/")
    return str(local_path(lake))


def locate_to_write(lake: str) -> str:
    """As `locate`, and a local lake's folder is made when it is absent.

    Raises:
        UserError: No folder can be made or written there.
    """
    located = locate(lake)
    if is_local(located):
        try:
            Path(located).mkdir(parents=True, exist_ok=True)
            _lock_file(located).touch()
        except OSError as error:
            raise UserError(
                f"Lake {lake!r} cannot be written ({error.strerror}). "
                "Name a folder that you may write: -P lake=FOLDER"
            ) from error
    return located


def is_local(lake: str) -> bool:
    """Whether a lake lies in a folder of this machine: a path, or a URI of the scheme `file`."""
    scheme = re.match(r"([a-zA-Z][\w+.-]+):", lake)  # one letter is a drive
    return scheme is None or scheme[1] == "file"


def snapshot(spark: SparkSession, lake: str, table: str, filler: str = "") -> Snapshot:
    """The newest version of a table; for a filler the table is made when it is not there yet.

    The version and the filler's count come from one read of the log, so that what is computed
    from the version fits the count. Delta offers the count in no public call of its own.
    Source: delta-spark, DeltaLog.update and Snapshot.transactions.

    Raises:
        UserError: There is no table to read, or it has other columns than this project writes.
    """
    path = f"{lake}/{table}"
    if not DeltaTable.isDeltaTable(spark, path):
        if not filler:
            raise UserError(
                f"There is no table {path!r} yet. Run: mlflow run . -e {MADE_BY[table]}"
            )
        _create(spark, path, table)
    jvm: Any = spark._jvm
    nothing = jvm.scala.Option.empty()
    log = jvm.org.apache.spark.sql.delta.DeltaLog.forTable(spark._jsparkSession, path)
    newest = log.update(False, nothing, nothing)
    _require_schema(StructType.fromJson(json.loads(newest.schema().json())), table, path)
    counters = newest.transactions()
    fills = counters.apply(filler) if counters.contains(filler) else -1
    return Snapshot(table, path, newest.version(), filler, fills)


def exists(spark: SparkSession, lake: str, table: str) -> bool:
    """Whether a table has been made."""
    return bool(DeltaTable.isDeltaTable(spark, f"{lake}/{table}"))


def read(spark: SparkSession, lake: str, table: str, version: int | None = None) -> DataFrame:
    """A table's rows, at its newest version or at the one given.

    Raises:
        UserError: There is no such table, or it has other columns than this project writes.
    """
    newest = snapshot(spark, lake, table)
    return (newest if version is None else replace(newest, version=version)).read(spark)


def rows(spark: SparkSession, lake: str, table: str) -> DataFrame:
    """A table's rows at its newest version, none when there is no table yet.

    Raises:
        UserError: The table has other columns than this project writes.
    """
    if exists(spark, lake, table):
        return read(spark, lake, table)
    return spark.createDataFrame([], schema(table))


def append(rows: DataFrame, since: Snapshot) -> Snapshot | None:
    """Appends rows that were computed from a snapshot, in one commit, or not at all.

    A compare-and-set: Delta keeps one counter for each filler in the table's log, and this append
    wants to move it from `since.fills` to the next number. When another append of the same filler
    has moved it since, Delta drops this one before it runs, or refuses its commit.
    Source: Delta protocol, "Transaction Identifiers"; docs.delta.io, "Idempotent table writes".

    Returns:
        The version that holds the rows, from which the filler's next append may be computed; or
        None when another append of the same filler came first: compute the rows again from a
        new snapshot.
    """
    spark = rows.sparkSession
    done = "spark.databricks.delta.lastCommitVersionInSession"
    spark.conf.unset(done)
    writer = rows.write.format("delta").mode("append")
    writer = writer.option("txnAppId", since.filler).option("txnVersion", since.fills + 1)
    try:
        writer.save(since.path)
    except LOST:
        return None
    committed = spark.conf.get(done, None)
    if committed is None:
        return None
    return replace(since, version=int(committed), fills=since.fills + 1)


def until_not_lost(work: Callable[[], Result]) -> Result:
    """Does it again when another writer was faster: on object storage nothing is locked."""
    while True:
        try:
            return work()
        except LOST:
            continue


@contextlib.contextmanager
def writing(
    lake: str,
    verb: str,
    *,
    on_wait: Callable[[str], None] = lambda holder: None,
    stop: Callable[[], bool] = lambda: False,
) -> Iterator[None]:
    """Holds the lake's writer lock: one verb at a time writes a local lake.

    Delta's log store for local folders guards the threads of one JVM, not processes. The kernel
    drops the lock with its process, so a kill leaves nothing behind. On object storage Delta's
    own log store decides and nothing is locked.

    Args:
        lake: As `locate` gives it.
        verb: Who writes, told to those who wait.
        on_wait: Called once with the holder's words when another process writes.
        stop: Asked while waiting.

    Raises:
        UserError: It was stopped while waiting.
    """
    if not is_local(lake):
        yield
        return
    lock = filelock.FileLock(_lock_file(lake))
    holder = Path(lake) / ".writer"
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        try:
            on_wait(holder.read_text(encoding="utf-8"))
        except OSError:
            on_wait("another process")  # it has just begun, or is about to end
        try:
            lock.acquire(cancel_check=stop)
        except filelock.Timeout:
            raise UserError("Stopped while another process was writing the lake") from None
    try:
        since = time.strftime("%Y-%m-%d %H:%M:%S")
        holder.write_text(f"{verb} (process {os.getpid()}, since {since})", encoding="utf-8")
        yield
    finally:
        holder.unlink(missing_ok=True)
        lock.release()


def _lock_file(lake: str) -> Path:
    return Path(lake) / ".lock"


def _create(spark: SparkSession, path: str, table: str) -> None:
    files = {file.name for file in Path(path).glob("*")} if is_local(path) else set()
    if files and "_delta_log" not in files:
        raise UserError(
            f"{path!r} is a folder of other files, where the table {table!r} would lie. "
            "Name another lake: -P lake=FOLDER"
        )
    maker = DeltaTable.createIfNotExists(spark).location(path)
    maker = maker.addColumns(schema(table))
    try:
        maker.partitionedBy(*PARTITIONS.get(table, ())).execute()
    except (*LOST, AnalysisException):  # somebody else makes it: seen half way, or just made
        for _ in range(50):
            if DeltaTable.isDeltaTable(spark, path):
                return
            time.sleep(0.1)
        raise


def schema(table: str) -> StructType:
    """The columns of one of our tables."""
    return cast(StructType, StructType.fromDDL(SCHEMAS[table]))


def _require_schema(found: StructType, table: str, path: str) -> None:
    """Columns may be added to a table of ours; none of ours may lack or change its type."""
    columns = {field.name: field.dataType for field in found}
    wanted = {field.name: field.dataType for field in schema(table)}
    wrong = [name for name, kind in wanted.items() if columns.get(name) != kind]
    if wrong:
        raise UserError(
            f"Table {path!r} is not a table of mlproject: its column {wrong[0]!r} is "
            f"{columns.get(wrong[0], 'missing')}. Name another lake: -P lake=FOLDER"
        )
