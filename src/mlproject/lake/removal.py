"""Takes rows out of Delta tables for good: deletes them, and the files that still hold their bytes.

Each of the two is safe to repeat, so what a kill cut short is finished by the same call again.
"""

from datetime import timedelta

from delta.tables import DeltaTable
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from mlproject.integrations.spark_session import settings
from mlproject.lake import spark_tables

REWRITE = {
    # A task writes a file of what it reads: one file each, so that rows of two ingest commits do
    # not come together, of which scoring skips whole files.
    "spark.sql.files.maxPartitionBytes": str(128 * 1024**2),
    "spark.sql.files.openCostInBytes": str(128 * 1024**2),
}

VACUUM = {
    # Delta refuses less than a week, for the sake of writers and readers that are at work.
    # Source: docs.delta.io, "Remove files no longer referenced by a Delta table".
    "spark.databricks.delta.retentionDurationCheck.enabled": "false",
    "spark.databricks.delta.vacuum.logging.enabled": "true",  # the count of files stands there only
}


def delete(spark: SparkSession, path: str, image_ids: DataFrame) -> int:
    """Deletes the rows of some images in one commit, none when there are no such rows.

    A MERGE and no DELETE, because a DELETE writes its whole condition into Delta's log.

    Args:
        spark: A session with Delta.
        path: Where the table lies.
        image_ids: One column, `image_id`. It is broadcast, so that no content is shuffled.

    Returns:
        The number of rows deleted.
    """

    def merge() -> int:
        table = DeltaTable.forPath(spark, path).alias("kept")
        gone = F.broadcast(image_ids).alias("gone")
        matched = table.merge(gone, "kept.image_id = gone.image_id").whenMatchedDelete()
        return int(matched.execute().collect()[0]["num_deleted_rows"])

    with settings(spark, REWRITE):
        return spark_tables.until_not_lost(merge)


def vacuum(spark: SparkSession, path: str, retention_hours: float) -> int:
    """Removes the files that hold deleted rows.

    With 0 hours no other process may write the table meanwhile: what it has not committed yet
    would be removed as well.

    Args:
        spark: A session with Delta.
        path: Where the table lies.
        retention_hours: Files deleted, or left by a kill, within these hours stay.

    Returns:
        The number of files removed.
    """
    table = DeltaTable.forPath(spark, path)
    if "deletionVectors" in (table.detail().collect()[0]["tableFeatures"] or ()):
        quoted = path.replace("`", "``")
        with settings(spark, REWRITE):
            spark_tables.until_not_lost(
                lambda: spark.sql(f"REORG TABLE delta.`{quoted}` APPLY (PURGE)")
            )
    # Its listing is as many tasks as this says, 10,000 by default: 90 s instead of 6 s for a small
    # table. Source: delta-spark, VacuumCommand.gc.
    tasks = str(spark.sparkContext.defaultParallelism)
    listing = {"spark.sql.sources.parallelPartitionDiscovery.parallelism": tasks}
    with settings(spark, VACUUM | listing):
        table.vacuum(retention_hours)
    ended = table.history(10).where("operation = 'VACUUM END'").orderBy(F.desc("version")).first()
    return int(ended["operationMetrics"]["numDeletedFiles"]) if ended else 0


def is_unfinished(spark: SparkSession, path: str) -> bool:
    """Whether files may still hold rows that `delete` took out.

    So it is when no whole VACUUM since has reached the last MERGE that deletes, by its time less
    its retention. Labels are given by MERGE too.
    Source: delta-spark, VacuumCommand.logVacuumStart and DeltaOperations.Merge, for the names of
    the parameters.

    Args:
        spark: A session with Delta.
        path: Where the table lies.
    """
    history = DeltaTable.forPath(spark, path).history().orderBy("version")
    deleted = started = reached = None
    for commit in history.select("operation", "operationParameters", "timestamp").collect():
        told = commit.operationParameters
        if commit.operation == "MERGE" and '"delete"' in told.get("matchedPredicates", ""):
            deleted = commit.timestamp
        elif commit.operation == "VACUUM START":
            millis = told.get("specifiedRetentionMillis") or told["defaultRetentionMillis"]
            started = commit.timestamp - timedelta(milliseconds=int(millis))
        elif commit.operation == "VACUUM END":
            reached = started
    return deleted is not None and (reached is None or reached < deleted)
