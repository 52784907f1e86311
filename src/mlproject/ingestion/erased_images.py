"""The image_ids that an ingest must not add again, because they were erased."""

from collections.abc import Iterator, Mapping
from itertools import chain

import pyarrow as pa
import pyarrow.compute as pc

from mlproject.lake.queries import query

ErasedIds = Mapping[int | None, list[str]]  # size in bytes (None = any) -> image_ids


def erased_ids(lake: str) -> ErasedIds:
    """The erased image_ids, but for those that `images` has again, as with `include_erased`.

    Args:
        lake: As `location.locate` gives it.
    """
    rows = query(
        lake,
        "SELECT image_id, size_bytes FROM erased "
        "LEFT ANTI JOIN images ON erased.image_id = images.image_id",
        ["erased", "images"],
    )
    found: dict[int | None, list[str]] = {}
    for row in rows.to_pylist():
        found.setdefault(row["size_bytes"], []).append(row["image_id"])
    return found


def with_erased_ids(todo: pa.Table, erased: ErasedIds) -> pa.Table:
    """The files with the erased image_ids of their size added to `known`.

    So an ingest hashes such a file before it adds it, and no other.

    Args:
        todo: Files with the columns size_bytes and known.
        erased: As `erased_ids` gives it.
    """
    if not erased:
        return todo
    anywhere = erased.get(None, [])
    pairs = zip(todo["known"].to_pylist(), todo["size_bytes"].to_pylist(), strict=True)
    known = [[*(ids or ()), *erased.get(size, ()), *anywhere] or None for ids, size in pairs]
    column = todo.schema.get_field_index("known")
    return todo.set_column(column, "known", pa.array(known, pa.list_(pa.string())))


def is_erased(files: pa.Table, erased: ErasedIds) -> pa.ChunkedArray:
    """For each file, by its image_id, whether its bytes were erased."""
    ids = pa.array(chain.from_iterable(erased.values()), pa.string())
    return pc.is_in(files["image_id"], ids)


def by_state(
    same: pa.Table, erased: ErasedIds, state: str, otherwise: str
) -> Iterator[tuple[str, pa.Table]]:
    """The files of known bytes by their state; no state without files.

    Args:
        same: Files with the column image_id; without it when there are none.
        erased: As `erased_ids` gives it.
        state: That of files with erased bytes.
        otherwise: That of the others.
    """
    if not same.num_rows:
        return
    among = is_erased(same, erased)
    for name, chosen in ((state, among), (otherwise, pc.invert(among))):
        files = same.filter(chosen)
        if files.num_rows:
            yield name, files
