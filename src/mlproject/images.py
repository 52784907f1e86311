"""What the tables know of the files of a source: questions that read no content."""

from dataclasses import dataclass

import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from mlproject import tables
from mlproject.session import from_arrow
from mlproject.sources import Listing

UNCHANGED, GONE, ERASED = "unchanged", "gone", "erased"  # states in `files`


def paths(images: DataFrame, files: DataFrame) -> DataFrame:
    """What is known of each path.

    Its columns: path, known (image_ids of its rows in `images`, null = none), and of what was seen
    there last image_id, state, size_bytes and modified_at.

    Args:
        images: The `images` table.
        files: The `files` table. A note of unchanged bytes counts as long as `images` has them.
    """
    facts = ["path", "image_id", "size_bytes", "modified_at"]
    ingested = F.lit("ingested").alias("state"), F.col("ingested_at").alias("at")
    rows = images.select("path", "image_id")
    unchanged = files.where(F.col("state") == UNCHANGED).join(
        rows, ["path", "image_id"], "left_semi"
    )
    others = files.where(F.col("state") != UNCHANGED)
    seen = unchanged.unionByName(others).select(*facts, "state", "at")
    known = F.collect_set(F.when(F.col("state") == "ingested", F.col("image_id")))
    last = F.max_by(F.struct("image_id", "state", "size_bytes", "modified_at"), "at")
    return (
        images.select(*facts, *ingested)
        .unionByName(seen)
        .groupBy("path")
        .agg(known.alias("known"), last.alias("last"))
        .select("path", F.when(F.size("known") > 0, F.col("known")).alias("known"), "last.*")
    )


def present(images: DataFrame, files: DataFrame) -> DataFrame:
    """The rows of `images` that hold what lies at their path now, as far as `ingest` has seen.

    Left out are overwritten contents and, where `on_missing=mark` has noted them, removed files.

    Args:
        images: The `images` table.
        files: The `files` table.
    """
    now = paths(images, files).where(F.col("state") != GONE).select("path", "image_id")
    return images.join(now, ["path", "image_id"], "left_semi")


def pending(images: DataFrame, listed_files: pa.Table, files: DataFrame) -> DataFrame:
    """The listed files whose size and modified time are not those last seen at their path.

    Args:
        images: The `images` table.
        listed_files: What lies in the source, as `sources.LISTED`.
        files: The `files` table.

    Returns:
        The columns of `listed_files` and `known`: the image_ids that `images` has for that path.
    """
    listed = from_arrow(images.sparkSession, listed_files)
    last = paths(images, files).select(
        "path", "known", F.struct("size_bytes", "modified_at").alias("last")
    )
    joined = listed.join(last, "path", "left")
    now = F.struct("size_bytes", "modified_at")
    return joined.where(~now.eqNullSafe(F.col("last"))).drop("last")


@dataclass(frozen=True, slots=True)
class Planned:
    """What an ingest would look at."""

    listed: int
    """Image files in the source."""
    new: int
    """Files at a path that the table does not know."""
    changed: int
    """Files of another size or modified time than the table knows for their path."""
    size_bytes: int
    """Bytes of the new and changed files."""
    left: dict[str, int]
    """Files that would be left, by reason: as `Listing.left_counts`."""


def plan(
    spark: SparkSession, lake: str, listed: Listing, *, include_erased: bool = False
) -> Planned:
    """What an ingest would look at now; reads no file and writes nothing.

    Args:
        spark: A session with Delta.
        lake: As `tables.locate` gives it; it need not be there yet.
        listed: What lies in the source.
        include_erased: Whether files with erased contents are wanted.
    """
    files = notes(spark, lake, include_erased=include_erased)
    todo = pending(tables.rows(spark, lake, "images"), listed.files, files).agg(
        F.count_if(F.col("known").isNull()).alias("new"),
        F.count_if(F.col("known").isNotNull()).alias("changed"),
        F.coalesce(F.sum("size_bytes"), F.lit(0)).alias("size_bytes"),
    )
    [(new, changed, size_bytes)] = todo.collect()
    return Planned(listed.files.num_rows, new, changed, size_bytes, listed.left_counts())


def notes(spark: SparkSession, lake: str, *, include_erased: bool = False) -> DataFrame:
    """What `files` says, without what it says of erased contents when these are wanted."""
    files = tables.rows(spark, lake, "files")
    return files.where(F.col("state") != ERASED) if include_erased else files


def status(spark: SparkSession, lake: str, listed: Listing) -> DataFrame:
    """What has become of each file of a source: path, size_bytes, modified_at, state, reason.

    States: `ingested`; `refused` (it has a row with an error, which is the reason), `new` and
    `changed` (the backlog of the next ingest), `left` (for a reason of
    `sources.Listing.left`, or `erased`).

    Args:
        spark: A session with Delta.
        lake: As `tables.locate` gives it; it need not be there yet.
        listed: What lies in the source.
    """
    images, files = tables.rows(spark, lake, "images"), tables.rows(spark, lake, "files")
    facts = ["path", "size_bytes", "modified_at"]
    backlog = pending(images, listed.files, files).select(
        *facts, F.when(F.col("known").isNull(), "new").otherwise("changed").alias("backlog")
    )
    known = paths(images, files).select("path", "image_id", F.col("state").alias("seen"))
    rows = images.select("path", "image_id", "error")
    said = known.join(rows, ["path", "image_id"], "left").select("path", "seen", "error")
    erased = F.col("seen") == ERASED
    state = F.when(erased, "left").when(F.col("error").isNull(), "ingested").otherwise("refused")
    there = (
        from_arrow(spark, listed.files.select(facts))
        .join(backlog.select("path", "backlog"), "path", "left")
        .join(said, "path", "left")
        .select(
            *facts,
            F.coalesce("backlog", state).alias("state"),
            F.when(
                F.col("backlog").isNull(), F.when(erased, ERASED).otherwise(F.col("error"))
            ).alias("reason"),
        )
    )
    left = from_arrow(spark, listed.left).withColumn("state", F.lit("left"))
    return there.unionByName(left, allowMissingColumns=True)
