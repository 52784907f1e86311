"""Names of before this release, until the packages that use them have moved on."""

from dataclasses import replace

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.pandas.types import from_arrow_schema
from pyspark.sql.types import StructType

from mlproject.lake import snapshots
from mlproject.lake.schemas import SCHEMAS
from mlproject.lake.snapshots import Snapshot, rows

__all__ = ["append", "exists", "read", "rows", "schema", "snapshot"]


def schema(table: str) -> StructType:
    """The columns of one of our tables."""
    return from_arrow_schema(SCHEMAS[table])


def snapshot(spark: SparkSession, lake: str, table: str, filler: str = "") -> Snapshot:
    """The newest version of a table; for a filler the table is made when it is not there yet."""
    if filler:
        return snapshots.to_append(lake, table, filler)
    return snapshots.required(lake, table)


def exists(spark: SparkSession, lake: str, table: str) -> bool:
    """Whether a table has been made."""
    return snapshots.is_table(f"{lake}/{table}")


def read(spark: SparkSession, lake: str, table: str, version: int | None = None) -> DataFrame:
    """A table's rows, at its newest version or at the one given."""
    newest = snapshots.required(lake, table)
    return (newest if version is None else replace(newest, version=version)).read(spark)


def append(rows: DataFrame, since: Snapshot) -> Snapshot | None:
    """Appends rows by Spark's own writer."""
    from delta import exceptions

    spark = rows.sparkSession
    done = "spark.databricks.delta.lastCommitVersionInSession"
    spark.conf.unset(done)
    writer = rows.write.format("delta").mode("append")
    writer = writer.option("txnAppId", since.filler).option("txnVersion", since.fills + 1)
    try:
        writer.save(since.path)
    except (
        exceptions.ConcurrentTransactionException,
        exceptions.ConcurrentAppendException,
        exceptions.ConcurrentDeleteDeleteException,
        exceptions.ConcurrentDeleteReadException,
        exceptions.ConcurrentWriteException,
        exceptions.MetadataChangedException,
        exceptions.ProtocolChangedException,
    ):
        return None
    committed = spark.conf.get(done, None)
    if committed is None:
        return None
    return replace(since, version=int(committed), fills=since.fills + 1)
