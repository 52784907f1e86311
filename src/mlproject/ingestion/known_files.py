"""What the tables record of the files of a source: queries that read no content."""

from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame

from mlproject.ingestion.source_listing import Listing
from mlproject.lake.queries import query, quoted
from mlproject.lake.snapshots import Snapshot

UNCHANGED, GONE, ERASED = "unchanged", "gone", "erased"  # states in `files`
_IDS = pa.list_(pa.string())
PART_FILES = 1_000_000  # listed files that are compared at once: what is known of them is held

# What was seen last at each path, in the SQL that Spark and DataFusion share. A record of unchanged
# bytes counts as long as `images` has them.
PATHS = """WITH seen AS (
  SELECT path, image_id, size_bytes, modified_at, 'ingested' AS state, ingested_at AS at
    FROM {images}
  UNION ALL
  SELECT path, image_id, size_bytes, modified_at, state, at FROM {files}
    WHERE state <> 'unchanged'
  UNION ALL
  SELECT files.path, files.image_id, files.size_bytes, files.modified_at, files.state, files.at
    FROM {files} AS files LEFT SEMI JOIN {images} AS images
    ON files.path = images.path AND files.image_id = images.image_id
    WHERE files.state = 'unchanged'
)
SELECT seen.path, seen.image_id, seen.state, seen.size_bytes, seen.modified_at
  FROM seen JOIN (SELECT path, max(at) AS at FROM seen GROUP BY path) AS last
  ON seen.path = last.path AND seen.at = last.at
"""


def paths(
    lake: str,
    first: str,
    last: str,
    columns: str = "path, image_id, state",
    *,
    include_erased: bool = False,
    at: Snapshot | None = None,
) -> pa.Table:
    """What was seen last at each path from `first` to `last`, in the order of their bytes.

    The columns are some of path, image_id, state, size_bytes and modified_at.

    With `include_erased` the records of erased contents are left out, so that these are ingested
    again. `at` is the version of `images` that is read; None = the newest. The lake may be absent.
    """
    condition = within(first, last)
    state = f"AND state <> '{ERASED}'" if include_erased else ""
    found = PATHS.format(
        images=f"(SELECT * FROM images WHERE {condition})",
        files=f"(SELECT * FROM files WHERE {condition} {state})",
    )
    sql = f"SELECT {columns} FROM ({found}) AS paths"
    return query(lake, sql, ["images", "files"], images=at)


def bounds(folder: str) -> tuple[str, str]:
    """The first and the last path that may be below a folder, in the order of their bytes."""
    return f"{folder}/", f"{folder}/\U0010ffff"  # the last character


def within(first: str, last: str) -> str:
    """The condition, in SQL, that a path lies from `first` to `last`."""
    return f"path >= {quoted(first)} AND path <= {quoted(last)}"


def present(images: DataFrame, files: DataFrame) -> DataFrame:
    """The rows of `images` that hold what lies at their path now, as far as `ingest` has seen.

    Left out are overwritten contents and, where `on_missing=mark` has recorded them, removed files.
    """
    seen = images.sparkSession.sql(PATHS, images=images, files=files)
    now = seen.where(f"state <> '{GONE}'").select("path", "image_id")
    return images.join(now, ["path", "image_id"], "left_semi")


def pending(
    lake: str, listed: Listing, *, include_erased: bool = False, at: Snapshot | None = None
) -> pa.Table:
    """The listed files whose size and modified time are not those last seen at their path.

    Their column `known` has the image_ids that `images` has for the path (null = none). The options
    are those of `paths`.
    """
    starts = range(0, listed.files.num_rows, PART_FILES)
    parts = (listed.files.slice(start, PART_FILES) for start in starts)
    none = listed.files.slice(0, 0).append_column("known", pa.nulls(0, _IDS))
    found = (_pending(lake, part, include_erased=include_erased, at=at) for part in parts)
    return pa.concat_tables([none, *found])


def _pending(lake: str, files: pa.Table, *, include_erased: bool, at: Snapshot | None) -> pa.Table:
    """As `pending`, of some of the listed files, by path."""
    facts = ["size_bytes", "modified_at"]
    first, last = files["path"][0].as_py(), files["path"][-1].as_py()
    columns = ", ".join(["path", *facts])
    seen = paths(lake, first, last, columns, include_erased=include_erased, at=at)
    place = pc.index_in(files["path"], seen["path"])
    same = [pc.equal(files[fact], seen[fact].take(place)) for fact in facts]
    todo = files.filter(pc.invert(pc.fill_null(pc.and_(*same), False)))
    if not pc.any(pc.is_in(todo["path"], seen["path"])).as_py():
        return todo.append_column("known", pa.nulls(todo.num_rows, _IDS))
    sql = f"SELECT path, image_id FROM images WHERE {within(first, last)}"
    rows = query(lake, sql, ["images"], images=at)
    rows = rows.filter(pc.is_in(rows["path"], todo["path"]))
    ids = rows.group_by("path").aggregate([("image_id", "list")])
    known = ids["image_id_list"].take(pc.index_in(todo["path"], ids["path"])).cast(_IDS)
    return todo.append_column("known", known)


@dataclass(frozen=True, slots=True)
class Planned:
    """What an ingest would read."""

    listed: int
    """Image files in the source."""
    new: int
    """Files at a path that the table does not have."""
    changed: int
    """Files of another size or modified time than the table has for their path."""
    size_bytes: int
    """Bytes of the new and changed files."""
    left: dict[str, int]
    """Files that would be left, by reason: as `Listing.left_counts`."""


def plan(lake: str, listed: Listing, *, include_erased: bool = False) -> Planned:
    """What an ingest would read now; reads no file and writes nothing."""
    todo = pending(lake, listed, include_erased=include_erased)
    new = todo["known"].null_count
    size_bytes = pc.sum(todo["size_bytes"]).as_py() or 0
    counts = listed.left_counts()
    return Planned(listed.files.num_rows, new, todo.num_rows - new, size_bytes, counts)
