"""Which contents an ingest must not take again, because they were erased."""

from collections.abc import Iterator, Mapping
from itertools import chain

import pyarrow as pa
import pyarrow.compute as pc

from mlproject.lake.queries import query

Refused = Mapping[int | None, list[str]]  # size in bytes (None = any) -> image_ids


def refused(lake: str) -> Refused:
    """The erased contents that `images` does not hold again: what it holds was wanted back.

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


def with_refused(todo: pa.Table, refused: Refused) -> pa.Table:
    """Adds to `known` the contents that a file of its size must not have.

    So an ingest reads such a file before it takes it, and no other.

    Args:
        todo: Files with the columns size_bytes and known.
        refused: As `refused` gives it.
    """
    if not refused:
        return todo
    anywhere = refused.get(None, [])
    pairs = zip(todo["known"].to_pylist(), todo["size_bytes"].to_pylist(), strict=True)
    known = [[*(ids or ()), *refused.get(size, ()), *anywhere] or None for ids, size in pairs]
    column = todo.schema.get_field_index("known")
    return todo.set_column(column, "known", pa.array(known, pa.list_(pa.string())))


def parted(
    same: pa.Table, refused: Refused, state: str, otherwise: str
) -> Iterator[tuple[str, pa.Table]]:
    """The files of known bytes by state, without the states that no file has.

    Args:
        same: Files with the column image_id; without it when there are none.
        refused: As `refused` gives it.
        state: That of files whose content is refused.
        otherwise: That of the others.
    """
    if not same.num_rows:
        return
    ids = pa.array(chain.from_iterable(refused.values()), pa.string())
    among = pc.is_in(same["image_id"], ids)
    for name, chosen in ((state, among), (otherwise, pc.invert(among))):
        files = same.filter(chosen)
        if files.num_rows:
            yield name, files
