"""The Delta tables of a lake in Spark: pinned reads, and appends that cannot double."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

from delta import exceptions
from delta.tables import DeltaTable
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.pandas.types import from_arrow_schema, to_arrow_schema
from pyspark.sql.types import StructType

from mlproject.lake.location import SCHEMAS, Snapshot, create, no_table, require_columns

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


def schema(table: str) -> StructType:
    """The columns of one of our tables."""
    return from_arrow_schema(SCHEMAS[table])


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
            raise no_table(path, table)
        create(path, table)
    jvm: Any = spark._jvm
    nothing = jvm.scala.Option.empty()
    log = jvm.org.apache.spark.sql.delta.DeltaLog.forTable(spark._jsparkSession, path)
    newest = log.update(False, nothing, nothing)
    columns = StructType.fromJson(json.loads(newest.schema().json()))
    require_columns(to_arrow_schema(columns, timezone="UTC"), table, path)
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
