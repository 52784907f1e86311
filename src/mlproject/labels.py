"""Labels of images: from their paths, or from a table that is joined on, now or later."""

import re
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
from delta.tables import DeltaTable
from pyarrow import csv
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from mlproject import tables
from mlproject.errors import UserError
from mlproject.files import local_path
from mlproject.session import from_arrow
from mlproject.sources import Listing, open_path

FOLDER = "folder"
KEYS = ("path", "image_id")


def from_paths(listed: Listing, word: str) -> Listing:
    """The listing with the labels that a pattern finds in the paths.

    Args:
        listed: What lies in the source; its labels are the folders' names.
        word: `folder` leaves them; else a regular expression, whose group named `label`, or
            whose first group, is the label of a path below the source, where it is found.

    Raises:
        UserError: As `pattern`.
    """
    wanted = pattern(word)
    if wanted is None:
        return listed
    group = "label" if "label" in wanted.groupindex else 1
    below = len(listed.root) + 1
    found = (wanted.search(path[below:]) for path in listed.files["path"].to_pylist())
    labels = pa.array([match[group] if match else None for match in found], pa.string())
    column = listed.files.schema.get_field_index("label")
    return replace(listed, files=listed.files.set_column(column, "label", labels))


def pattern(word: str) -> re.Pattern[str] | None:
    """The regular expression that a word is, None for `folder`.

    Raises:
        UserError: It is no regular expression with a group.
    """
    if word == FOLDER:
        return None
    try:
        found = re.compile(word)
    except re.error as error:
        raise UserError(f"labels={word!r} is no file and no regular expression: {error}") from error
    if not found.groups:
        raise UserError(
            f"labels={word!r} is no file, and no regular expression with a group such as (.+)_"
        )
    return found


def is_table(word: str) -> bool:
    """Whether the word names a file or table of labels, not a way to read them off the paths."""
    return word.lower().endswith(".csv") or (word != FOLDER and Path(word).exists())


def given(spark: SparkSession, word: str, source: str) -> DataFrame:
    """The labels of a CSV file or a Delta table: path or image_id, and label ("" = null).

    Args:
        spark: A session with Delta.
        word: The file, with a line of names; or the table's folder.
        source: As `Listing.root`; paths in the table may be written below it.

    Raises:
        UserError: There is no such table, it has other columns, or two labels for one image.
    """
    if word.lower().endswith(".csv"):
        found = from_arrow(spark, _read_csv(word))
    elif DeltaTable.isDeltaTable(spark, tables.locate(word)):
        found = spark.read.format("delta").load(tables.locate(word))
    else:
        raise UserError(f"labels={word!r} is no CSV file and no Delta table")
    keys = [key for key in KEYS if key in found.columns]
    if len(keys) != 1 or "label" not in found.columns:
        raise UserError(
            f"labels={word!r} has the columns {', '.join(found.columns)}. "
            "It takes label, and one of path and image_id"
        )
    [key] = keys
    name = F.col(key)
    if key == "path":
        absolute = name.startswith("/") | name.contains("://")
        name = F.when(absolute, name).otherwise(F.concat(F.lit(f"{source.rstrip('/')}/"), name))
    rows = found.select(
        name.alias(key), F.when(F.col("label") != "", F.col("label")).alias("label")
    ).distinct()
    twice = rows.groupBy(key).count().where("count > 1").first()
    if twice is not None:
        raise UserError(f"labels={word!r} has two labels for {key} {twice[key]!r}")
    return rows


def apply(images: DataFrame, given: DataFrame) -> DataFrame:
    """Rows of `images` with the labels given for them; the others keep theirs."""
    key = given.columns[0]
    new = F.broadcast(given.select(key, F.struct("label").alias("new")))
    label = F.when(F.col("new").isNull(), F.col("label")).otherwise(F.col("new.label"))
    return images.join(new, key, "left").withColumn("label", label).select(*images.columns)


def relabel(spark: SparkSession, lake: str, given: DataFrame) -> int:
    """Gives the rows of `images` the labels given for them; gives back how many had others.

    No image file is read, and nothing is committed when all rows have their labels. Delta writes
    the table's files that hold such a row anew, content included.

    Args:
        spark: A session with Delta.
        lake: As `tables.locate` gives it.
        given: As `given` reads them.
    """
    return tables.until_not_lost(lambda: _relabel(spark, lake, given))


def _relabel(spark: SparkSession, lake: str, given: DataFrame) -> int:
    rows = tables.rows(spark, lake, "images").select("path", "image_id", "label")
    new = apply(rows.withColumn("old", F.col("label")), given)
    changed = new.where(~F.col("label").eqNullSafe(F.col("old"))).persist()
    try:
        count = changed.count()
        if count:
            # The few are sent to where the many lie: a shuffle would carry content.
            merge = (
                DeltaTable.forPath(spark, f"{lake}/images")
                .alias("old")
                .merge(
                    F.broadcast(changed).alias("given"),
                    "old.path = given.path and old.image_id = given.image_id",
                )
            )
            merge.whenMatchedUpdate(set={"label": "given.label"}).execute()
        return count
    finally:
        changed.unpersist()


def _read_csv(word: str) -> pa.Table:
    """A CSV file of strings; an empty cell is an empty string."""
    filesystem, path = open_path(word if "://" in word else str(local_path(word)))
    try:
        with filesystem.open_input_stream(path) as stream:
            names = csv.open_csv(stream).schema.names
        with filesystem.open_input_stream(path) as stream:
            kinds = csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string()))
            return csv.read_csv(stream, convert_options=kinds)
    except (OSError, pa.ArrowInvalid) as error:
        raise UserError(f"labels={word!r} cannot be read ({error})") from error
