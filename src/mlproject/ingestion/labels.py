"""Labels of images: from their paths, or from a table that is joined on, now or later."""

import re
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
from delta.tables import DeltaTable
from pyarrow import csv
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from mlproject.errors import UserError
from mlproject.ingestion.source_listing import Listing
from mlproject.integrations.local_files import local_path
from mlproject.integrations.object_storage import open_path
from mlproject.integrations.spark_session import from_arrow
from mlproject.lake import spark_tables, tables

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
    named = "://" in word or Path(word).exists()
    return word.lower().endswith(".csv") or (word != FOLDER and named)


def given(word: str, source: str) -> pa.Table:
    """The labels of a CSV file or a Delta table: path or image_id, and label ("" = null).

    Args:
        word: The file, with a line of names; or the table's folder or URI.
        source: As `Listing.root`; paths in the table may be written below it.

    Raises:
        UserError: There is no such table, it has other columns, or two labels for one image.
    """
    found = (
        _read_csv(word) if word.lower().endswith(".csv") else tables.foreign(word, [*KEYS, "label"])
    )
    keys = [name for name in found.column_names if name in KEYS]
    if len(keys) != 1 or found.column_names.count("label") != 1:
        raise UserError(
            f"labels={word!r} has the columns {', '.join(found.column_names)}. "
            "It takes label, and one of path and image_id"
        )
    [key] = keys
    try:
        names, labels = (found[name].cast(pa.string()) for name in (key, "label"))
    except pa.ArrowException as error:
        raise UserError(f"labels={word!r}: {key} and label must be words ({error})") from error
    if key == "path":
        names = pa.chunked_array(
            [[_whole(name, source) for name in names.to_pylist()]], pa.string()
        )
    labels = pc.if_else(pc.equal(labels, ""), None, labels)
    rows = pa.table({key: names, "label": labels}).group_by([key, "label"]).aggregate([])
    counts = rows.group_by(key).aggregate([("label", "count", pc.CountOptions(mode="all"))])
    twice = counts.filter(pc.greater(counts["label_count"], 1))[key]
    if len(twice):
        raise UserError(f"labels={word!r} has two labels for {key} {twice[0].as_py()!r}")
    return rows


def _whole(path: str | None, source: str) -> str | None:
    """A path as the tables have it."""
    if path is None or path.startswith("/"):
        return path
    if path.startswith("file:"):
        return str(local_path(path))
    return path if "://" in path else f"{source.rstrip('/')}/{path}"


def apply(images: pa.Table, given: pa.Table) -> pa.Table:
    """Rows of `images` with the labels given for them; the others keep theirs."""
    key = given.column_names[0]
    place = pc.index_in(images[key], given[key])
    label = pc.if_else(pc.is_valid(place), given["label"].take(place), images["label"])
    return images.set_column(images.schema.get_field_index("label"), "label", label)


def unmatched(lake: str, given: pa.Table) -> int:
    """How many of the given labels are of no image in the table.

    Args:
        lake: As `lakes.locate` gives it.
        given: As `given` reads them.
    """
    key = given.column_names[0]
    known = tables.query(lake, f"SELECT DISTINCT {key} FROM images", ["images"])
    return int(given.num_rows - (pc.sum(pc.is_in(given[key], known[key])).as_py() or 0))


def changes(lake: str, given: pa.Table) -> pa.Table:
    """The rows of `images` that have other labels than those given: path, image_id, label.

    Args:
        lake: As `lakes.locate` gives it.
        given: As `given` reads them.
    """
    rows = tables.query(lake, "SELECT path, image_id, label FROM images", ["images"])
    labels = apply(rows, given)
    same = pc.equal(rows["label"], labels["label"])
    both_null = pc.and_(pc.is_null(rows["label"]), pc.is_null(labels["label"]))
    return labels.filter(pc.invert(pc.or_(pc.fill_null(same, False), both_null)))


def relabel(spark: SparkSession, lake: str, given: pa.Table) -> int:
    """Gives the rows of `images` the labels given for them; gives back how many had others.

    No image file is read, and nothing is committed when all rows have their labels. Delta writes
    the table's files that hold such a row anew, content included.

    Args:
        spark: A session with Delta.
        lake: As `lakes.locate` gives it.
        given: As `given` reads them.
    """

    def merge() -> int:
        changed = changes(lake, given)
        if changed.num_rows:
            # The few are sent to where the many lie: a shuffle would carry content.
            few = F.broadcast(from_arrow(spark, changed)).alias("given")
            images = DeltaTable.forPath(spark, f"{lake}/images").alias("old")
            same = "old.path = given.path and old.image_id = given.image_id"
            merged = images.merge(few, same).whenMatchedUpdate(set={"label": "given.label"})
            merged.execute()
        return int(changed.num_rows)

    return spark_tables.until_not_lost(merge)


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
