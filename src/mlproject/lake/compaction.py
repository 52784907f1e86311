"""The files of a Delta table: small ones are put together when it pays."""

from delta.tables import DeltaTable
from pyspark.sql import SparkSession

from mlproject.integrations.spark_session import settings
from mlproject.lake.tables import file_sizes

MANY = 10  # small files that are worth a commit
# Below these shares of the wanted size files are put together, the smallest first. Up to a 64th, a
# few MB, that is cheap to repeat; from there on a row is written anew once a share, however many
# small ingests come, and a file of a quarter never.
SHARES = (64, 16, 4)


def pays(path: str, target_bytes: int) -> int:
    """Below which size, bytes, a table's files are to be put together; 0 = it does not pay yet.

    Args:
        path: Where the table lies; it need not be there.
        target_bytes: Bytes of a file, about.
    """
    sizes = file_sizes(path)
    for share in SHARES:
        if sum(size < target_bytes // share for size in sizes) >= MANY:
            return target_bytes // share
    return 0


def compact(spark: SparkSession, path: str, target_bytes: int) -> None:
    """Puts small files of a table together into files of about `target_bytes`, when it pays.

    The old files stay until a VACUUM, for readers of older versions.
    Source: docs.delta.io, "Compaction (bin-packing)".

    Args:
        spark: A session with Delta.
        path: Where the table lies.
        target_bytes: Bytes of a file, about.
    """
    small = pays(path, target_bytes)
    if small:
        wanted = {
            "spark.databricks.delta.optimize.minFileSize": str(small),
            "spark.databricks.delta.optimize.maxFileSize": str(target_bytes),
        }
        with settings(spark, wanted):
            DeltaTable.forPath(spark, path).optimize().executeCompaction()
