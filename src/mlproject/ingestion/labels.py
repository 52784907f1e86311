"""Labels of images: from their paths, or from a table, at ingest or later.

Labels given later are rows of the table `labels`; the newest one replaces `images.label`.
"""

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from mlproject.errors import UserError
from mlproject.ingestion.source_listing import Listing
from mlproject.lake import commits, snapshots
from mlproject.lake.queries import query
from mlproject.storage.local_files import local_path

FOLDER = "folder"
TEXTS = (".csv", ".tsv", ".txt")  # ends of the names of tables that are text files

# In the SQL that Spark and DataFusion share.
NEWEST = """SELECT path, image_id, label, at FROM (
  SELECT path, image_id, label, at,
    row_number() OVER (PARTITION BY path, image_id ORDER BY at DESC) AS place
    FROM {labels}
) AS ranked WHERE place = 1"""
CURRENT = f"""SELECT images.path, images.image_id, images.size_bytes, images.error,
    images.ingested_at,
    CASE WHEN newest.image_id IS NULL THEN images.label ELSE newest.label END AS label,
    CASE WHEN newest.image_id IS NULL THEN images.ingested_at ELSE newest.at END AS labelled_at
  FROM images LEFT JOIN ({NEWEST.format(labels="labels")}) AS newest
  ON images.path = newest.path AND images.image_id = newest.image_id"""
# Of the rows of one image: their label, where those that have one agree.
ONE_LABEL = "CASE WHEN min(label) = max(label) THEN min(label) END"
# The newest label of each image without an error, where its files have one only: that of training.
_BY_IMAGE = f"""SELECT image_id, min(label) AS label FROM (
  SELECT image_id, label, labelled_at, max(labelled_at) OVER (PARTITION BY image_id) AS newest_at
    FROM ({CURRENT}) AS current WHERE label <> '' AND error IS NULL
) AS labelled WHERE labelled_at = newest_at GROUP BY image_id HAVING min(label) = max(label)"""


def from_paths(listed: Listing, option: str) -> Listing:
    """The listing with the labels that a pattern finds in the paths below the source.

    The label is the group named `label`, or else the first. Without a pattern it is the folder's
    name, as listed.
    """
    wanted = pattern(option)
    if wanted is None:
        return listed
    group = "label" if "label" in wanted.groupindex else 1
    below = len(listed.root) + 1
    found = (wanted.search(path[below:]) for path in listed.files["path"].to_pylist())
    labels = pa.array([match[group] if match else None for match in found], pa.string())
    column = listed.files.schema.get_field_index("label")
    return replace(listed, files=listed.files.set_column(column, "label", labels))


def pattern(option: str) -> re.Pattern[str] | None:
    """The regular expression in the option `labels`; None for `folder` and tables.

    Raises:
        UserError: It is no regular expression with a group.
    """
    if option == FOLDER or is_table(option):
        return None
    try:
        found = re.compile(option)
    except re.error as error:
        raise UserError(
            f"labels={option!r} is neither a file nor a regular expression ({error})"
        ) from error
    if not found.groups:
        raise UserError(
            f"labels={option!r} is neither a file nor a regular expression with a group: (.+)_"
        )
    return found


def is_table(option: str) -> bool:
    """Whether the option `labels` names a file or table, not a pattern for paths."""
    named = "://" in option or Path(option).exists()
    return option.lower().endswith(TEXTS) or (option != FOLDER and named)


def absolute(option: str) -> str:
    """The option `labels`, with the whole path of a local file or table."""
    return str(local_path(option)) if is_table(option) and "://" not in option else option


def relabelled(images: pa.Table, given: pa.Table | None) -> pa.Table:
    """Rows of `images` with the labels that are given for them; other rows keep their label."""
    if given is None:
        return images
    key = given.column_names[0]
    place = pc.index_in(images[key], given[key])
    label = pc.if_else(pc.is_valid(place), given["label"].take(place), images["label"])
    return images.set_column(images.schema.get_field_index("label"), "label", label)


def _changes(lake: str, given: pa.Table) -> pa.Table:
    """The images that have other labels now than those given: path, image_id, label (as given)."""
    rows = query(lake, f"SELECT path, image_id, label FROM ({CURRENT})", ["images", "labels"])
    labels = relabelled(rows, given)
    same = pc.equal(rows["label"], labels["label"])
    both_null = pc.and_(pc.is_null(rows["label"]), pc.is_null(labels["label"]))
    return labels.filter(pc.invert(pc.or_(pc.fill_null(same, False), both_null)))


def append_labels(lake: str, given: pa.Table, source: str) -> int:
    """Appends the labels that differ from the current ones; returns how many.

    No image file is read and no row of `images` is changed. `source` is where they were read from.
    """
    if not _changes(lake, given).num_rows:
        return 0
    while True:
        # This snapshot first: an erasure fences `labels` after it has rewritten `images`.
        since = snapshots.to_append(lake, "labels", "labels")
        changed = _changes(lake, given)
        last = query(lake, "SELECT max(at) AS at FROM labels", labels=since)["at"][0].as_py()
        at = datetime.now(UTC)
        if last:  # later than the last row, also when the clock went back
            at = max(at, last + timedelta.resolution)
        count = changed.num_rows
        rows = changed.append_column("source", pa.repeat(source, count))
        if commits.append_rows(rows.append_column("at", pa.repeat(at, count)), since):
            return int(count)


def with_newest(images: DataFrame, labels: DataFrame) -> DataFrame:
    """The rows of `images` with their newest label, and `labelled_at`, since when it is theirs.

    The rows must be without content: a join may shuffle them.
    """
    newest = images.sparkSession.sql(NEWEST, labels=labels)
    given = newest.withColumnsRenamed({"label": "given", "at": "labelled_at"})
    label = F.when(F.col("labelled_at").isNotNull(), F.col("given")).otherwise(F.col("label"))
    return (
        images.join(given, ["path", "image_id"], "left")
        .withColumns({"label": label, "labelled_at": F.coalesce("labelled_at", "ingested_at")})
        .select(*images.columns, "labelled_at")
    )


def by_image(lake: str) -> dict[str, str]:
    """The label, by image_id, of every image that has one; without Spark."""
    rows = query(lake, _BY_IMAGE, ["images", "labels"])
    return dict(zip(rows["image_id"].to_pylist(), rows["label"].to_pylist(), strict=True))
