"""Removes images from every table, and from every file of the lake."""

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.compute as pc

from mlproject.erasure.selection import Selection
from mlproject.errors import UserError
from mlproject.ingestion.known_files import ERASED
from mlproject.lake import commits, rewrites, snapshots, vacuum
from mlproject.lake.queries import query
from mlproject.lake.rewrites import OpenSpark

# `images` first: rows computed from its old version are refused by the fences that follow.
# `files` last: a path that is only in it still leads to its content after a kill.
TABLES = ("images", "predictions", "labels", "files")
EXAMPLES = 10  # paths that a plan shows


@dataclass(frozen=True, slots=True)
class ErasurePlan:
    """What an erasure would remove."""

    contents: int
    """Different contents, by image_id."""
    rows: int
    """Rows of `images` with these contents."""
    elsewhere: int
    """Rows among them at paths that the selection does not name."""
    size_bytes: int
    """Bytes of these rows' files."""
    predictions: dict[str, int]
    """Rows of `predictions` by model version, such as "photos/3"."""
    unknown: int
    """Named paths and image_ids that no table has."""
    examples: list[str]
    """The first of the rows' paths."""


@dataclass(frozen=True, slots=True)
class Erasure:
    """What one erasure removed."""

    contents: int
    """Different contents that were selected."""
    rows: dict[str, int]
    """Rows deleted, by table."""
    data_files: int
    """Files removed, of all tables."""
    unknown: int
    """Named paths and image_ids that no table has."""


def plan_erasure(lake: str, chosen: Selection) -> ErasurePlan:
    """What an erasure would remove now; writes nothing.

    Raises:
        UserError: There is no table of images, or nothing in the lake matches.
    """
    snapshots.required(lake, "images")
    ids, unknown = _contents(lake, chosen)
    if not ids.num_rows:
        raise _no_match(lake, chosen)
    sql = "SELECT path, image_id, size_bytes FROM images ORDER BY path"
    rows = _with_ids(query(lake, sql, ["images"]), ids["image_id"])
    sql = "SELECT image_id, model_name, model_version FROM predictions"
    predictions = _with_ids(query(lake, sql, ["predictions"]), ids["image_id"])
    made_by = predictions.select(["model_name", "model_version"])
    versions = Counter((row["model_name"], row["model_version"]) for row in made_by.to_pylist())
    return ErasurePlan(
        ids.num_rows,
        rows.num_rows,
        rows.num_rows - chosen.named(rows).num_rows,
        pc.sum(rows["size_bytes"]).as_py() or 0,
        {f"{name}/{number}": count for (name, number), count in sorted(versions.items())},
        unknown,
        rows["path"].slice(0, EXAMPLES).to_pylist(),
    )


def erase_images(
    lake: str,
    chosen: Selection,
    spark: OpenSpark,
    *,
    retention_hours: float = 0,
    on_step: Callable[[int, int], None] = lambda done, total: None,
) -> Erasure:
    """Removes the selected contents from every table, and the files that hold them.

    The hashes are added to `erased` first, so that no ingest adds the contents again. Then each
    table is rewritten and fenced: commits of others from before are computed anew, without the
    erased images. After a kill the same call finds the contents by their paths in `images` or
    `files`, and once these are gone it finishes what any erasure has left.

    `spark` starts a session when there is much to rewrite. Files deleted within `retention_hours`
    stay, and can be read by time travel. `on_step` is called with the steps done, and all.

    Raises:
        UserError: There is no table of images; nothing matches and no erasure is unfinished; or a
            table cannot be rewritten.
    """
    if not 0 <= retention_hours < math.inf:
        raise UserError(f"retention_hours={retention_hours:g} is not a number of hours, 0 or more")
    snapshots.required(lake, "images")
    ids, unknown = _contents(lake, chosen)
    if not ids.num_rows and not _is_unfinished(lake):
        raise _no_match(lake, chosen)
    total = 1 + 2 * len(TABLES)
    _append_erased(lake, ids)
    on_step(1, total)
    rows: dict[str, int] = {}
    for step, name in enumerate(TABLES, start=2):
        # Checked only now: whoever creates it later reads `images` without the erased rows.
        if snapshots.is_table(f"{lake}/{name}"):
            gone = {*ids["image_id"].to_pylist(), *_left_over(lake, name)}
            rows[name] = rewrites.erase_rows(f"{lake}/{name}", sorted(gone), spark).rows_removed
        on_step(step, total)
    data_files = 0
    for step, name in enumerate(TABLES, start=2 + len(TABLES)):
        if name in rows:
            data_files += vacuum.erased_files(f"{lake}/{name}", retention_hours)
        on_step(step, total)
    if not ids.num_rows and not data_files and not any(rows.values()):
        raise _no_match(lake, chosen)
    return Erasure(ids.num_rows, rows, data_files, unknown)


def _contents(lake: str, chosen: Selection) -> tuple[pa.Table, int]:
    """The selected contents in the tables: image_id, size_bytes (null = unknown).

    And how many of the named paths and image_ids no table has.
    """
    seen = "SELECT path, image_id, size_bytes FROM {}"
    sources = [seen.format("images"), seen.format("files")]
    if chosen.image_ids:
        nowhere = "SELECT arrow_cast(NULL, 'Utf8') AS path, image_id, {} AS size_bytes FROM {}"
        sources.append(nowhere.format("arrow_cast(NULL, 'Int64')", "predictions"))
        sources.append(nowhere.format("size_bytes", "erased"))
    tables = ["images", "files", "predictions", "erased"]
    found = chosen.named(query(lake, " UNION ALL ".join(sources), tables))
    unknown = chosen.paths.difference(found["path"].to_pylist())
    unknown |= chosen.image_ids.difference(found["image_id"].to_pylist())
    sizes = found.group_by("image_id").aggregate([("size_bytes", "max")])
    return sizes.rename_columns(["image_id", "size_bytes"]), len(unknown)


def _with_ids(rows: pa.Table, ids: pa.ChunkedArray) -> pa.Table:
    return rows.filter(pc.is_in(rows["image_id"], ids.combine_chunks()))


def _append_erased(lake: str, ids: pa.Table) -> None:
    """Adds hashes to `erased`, each once."""
    while True:
        since = snapshots.to_append(lake, "erased", "erased")
        known = query(lake, "SELECT image_id FROM erased", ["erased"], erased=since)["image_id"]
        new = ids.filter(pc.invert(pc.is_in(ids["image_id"], known.combine_chunks())))
        rows = new.append_column("at", pa.repeat(datetime.now(UTC), new.num_rows))
        if not new.num_rows or commits.append_rows(rows, since):
            return


def _is_unfinished(lake: str) -> bool:
    """Whether an erasure was killed, retains files, or was followed by new rows of its images."""
    present = [name for name in TABLES if snapshots.is_table(f"{lake}/{name}")]
    return snapshots.is_table(f"{lake}/erased") and any(
        vacuum.is_unfinished(f"{lake}/{name}") or bool(_left_over(lake, name)) for name in present
    )


def _left_over(lake: str, table: str) -> list[str]:
    """Erased contents that a table has and `images` does not, as after a kill."""
    if table == "images":
        return []
    rows = f"(SELECT * FROM files WHERE state <> '{ERASED}')" if table == "files" else table
    sql = f"""SELECT DISTINCT found.image_id FROM {rows} AS found
        LEFT SEMI JOIN erased ON found.image_id = erased.image_id
        LEFT ANTI JOIN images ON found.image_id = images.image_id"""
    ids: list[str] = query(lake, sql, [table, "erased", "images"])["image_id"].to_pylist()
    return ids


def _no_match(lake: str, chosen: Selection) -> UserError:
    count = len(chosen.paths) + len(chosen.image_ids)
    what = f"a path below {chosen.prefix!r}" if chosen.prefix else f"any of {count} names"
    if count == 1:
        what = repr(*chosen.paths, *chosen.image_ids)
    return UserError(
        f"The tables in {lake!r} have no row of {what}. If it was erased before, nothing of it is "
        "left. Write paths as in the column `path` of table images"
    )
