"""What the tables record of the files of a source: queries that read no content."""

from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame

from mlproject.ingestion.source_listing import Listing
from mlproject.lake.queries import query
from mlproject.lake.snapshots import Snapshot

UNCHANGED, GONE, ERASED = "unchanged", "gone", "erased"  # states in `files`

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
    columns: str = "path, image_id, state",
    *,
    include_erased: bool = False,
    at: Snapshot | None = None,
) -> pa.Table:
    """What was seen last at each path.

    Args:
        lake: As `location.locate` gives it; it need not be there yet.
        columns: Which of path, image_id, state, size_bytes, modified_at.
        include_erased: Whether erased contents are to be ingested again.
        at: The version of `images` that is read; None = the newest.
    """
    noted = f"(SELECT * FROM files WHERE state <> '{ERASED}')" if include_erased else "files"
    sql = f"SELECT {columns} FROM ({PATHS.format(images='images', files=noted)}) AS paths"
    return query(lake, sql, ["images", "files"], at)


def present(images: DataFrame, files: DataFrame) -> DataFrame:
    """The rows of `images` that hold what lies at their path now, as far as `ingest` has seen.

    Left out are overwritten contents and, where `on_missing=mark` has recorded them, removed files.

    Args:
        images: The `images` table.
        files: The `files` table.
    """
    seen = images.sparkSession.sql(PATHS, images=images, files=files)
    now = seen.where(f"state <> '{GONE}'").select("path", "image_id")
    return images.join(now, ["path", "image_id"], "left_semi")


def pending(
    lake: str, listed: Listing, *, include_erased: bool = False, at: Snapshot | None = None
) -> pa.Table:
    """The listed files whose size and modified time are not those last seen at their path.

    Args:
        lake: As `location.locate` gives it; it need not be there yet.
        listed: What lies in the source.
        include_erased: As `paths`.
        at: As `paths`.

    Returns:
        Rows of `listed.files`, and `known`: the image_ids that `images` has for the path (null =
        none).
    """
    facts = ["size_bytes", "modified_at"]
    seen = paths(lake, ", ".join(["path", *facts]), include_erased=include_erased, at=at)
    place = pc.index_in(listed.files["path"], seen["path"])
    same = [pc.equal(listed.files[fact], seen[fact].take(place)) for fact in facts]
    todo = listed.files.filter(pc.invert(pc.fill_null(pc.and_(*same), False)))
    return todo.append_column("known", _known(lake, todo["path"], seen["path"], at))


def _known(lake: str, wanted: pa.Array, seen: pa.Array, at: Snapshot | None) -> pa.Array:
    """For each path the image_ids of its rows in `images`, null when there are none."""
    kind = pa.list_(pa.string())
    if not pc.any(pc.is_in(wanted, seen)).as_py():
        return pa.nulls(len(wanted), kind)
    rows = query(lake, "SELECT path, image_id FROM images", ["images"], at)
    rows = rows.filter(pc.is_in(rows["path"], wanted))
    ids = rows.group_by("path").aggregate([("image_id", "list")])
    return ids["image_id_list"].take(pc.index_in(wanted, ids["path"])).cast(kind)


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
    """What an ingest would read now; reads no file and writes nothing.

    Args:
        lake: As `location.locate` gives it; it need not be there yet.
        listed: What lies in the source.
        include_erased: Whether files with erased contents are ingested again.
    """
    todo = pending(lake, listed, include_erased=include_erased)
    new = todo["known"].null_count
    size_bytes = pc.sum(todo["size_bytes"]).as_py() or 0
    counts = listed.left_counts()
    return Planned(listed.files.num_rows, new, todo.num_rows - new, size_bytes, counts)


def status(lake: str, listed: Listing) -> pa.Table:
    """The state of each file of a source: path, size_bytes, modified_at, state, reason.

    States: `ingested`; `refused` (it has a row with an error, which is the reason), `new` and
    `changed` (the backlog of the next ingest), `left` (for a reason of
    `source_listing.Listing.left`, or `erased`).

    Args:
        lake: As `location.locate` gives it; it need not be there yet.
        listed: What lies in the source.
    """
    seen = paths(lake)
    errors = query(
        lake, "SELECT path, image_id, error FROM images WHERE error IS NOT NULL", ["images"]
    )
    keys = ["path", "image_id"]
    with_errors = seen.join(errors, keys, join_type="left outer")
    place = pc.index_in(listed.files["path"], with_errors["path"])
    error, was = with_errors["error"].take(place), with_errors["state"].take(place)
    todo = pending(lake, listed)
    known = todo.filter(pc.is_valid(todo["known"]))["path"]
    is_todo, is_known = (pc.is_in(listed.files["path"], some) for some in (todo["path"], known))
    is_erased, is_refused = pc.fill_null(pc.equal(was, ERASED), False), pc.is_valid(error)
    state = pc.case_when(
        pc.make_struct(pc.and_not(is_todo, is_known), is_known, is_erased, is_refused),
        *("new", "changed", "left", "refused", "ingested"),
    )
    reason = pc.if_else(is_todo, None, pc.if_else(is_erased, ERASED, error))
    facts = listed.files.select(["path", "size_bytes", "modified_at"])
    there = facts.append_column("state", state).append_column("reason", reason)
    left = listed.left.append_column("state", pa.array(["left"] * listed.left.num_rows))
    return pa.concat_tables([there, left], promote_options="default")
