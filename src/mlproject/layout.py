"""The files of a Delta table: small ones are put together when it pays."""

from typing import Any

from delta.tables import DeltaTable
from pyspark.sql import DataFrame, SparkSession

from mlproject.session import settings

MANY = 10  # small files that are worth a commit
# Below these shares of the wanted size files are put together, the smallest first. Up to a 64th, a
# few MB, that is cheap to repeat; from there on a row is written anew once a share, however many
# small ingests come, and a file of a quarter never.
SHARES = (64, 16, 4)


def compact(spark: SparkSession, path: str, target_bytes: int) -> int:
    """Puts small files of a table together into files of about `target_bytes`, when they are many.

    The old files stay until a VACUUM, for readers of older versions.
    Source: docs.delta.io, "Compaction (bin-packing)".

    Args:
        spark: A session with Delta.
        path: Where the table lies.
        target_bytes: Bytes of a file, about.

    Returns:
        How many files were put together; 0 = it does not pay yet.
    """
    sizes = _file_sizes(spark, path)
    for share in SHARES:
        small = sum(size < target_bytes // share for size in sizes)
        if small >= MANY:
            wanted = {
                "spark.databricks.delta.optimize.minFileSize": str(target_bytes // share),
                "spark.databricks.delta.optimize.maxFileSize": str(target_bytes),
            }
            with settings(spark, wanted):
                DeltaTable.forPath(spark, path).optimize().executeCompaction()
            return small
    return 0


def _file_sizes(spark: SparkSession, path: str) -> list[int]:
    """Bytes of each of the table's files. Source: delta-spark, Snapshot.allFiles."""
    jvm: Any = spark._jvm
    nothing = jvm.scala.Option.empty()
    log = jvm.org.apache.spark.sql.delta.DeltaLog.forTable(spark._jsparkSession, path)
    files = DataFrame(log.update(False, nothing, nothing).allFiles().toDF(), spark)
    return [row["size"] for row in files.select("size").collect()]
