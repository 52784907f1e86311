"""Random images of a lake, without Spark: only the row groups that hold one are read."""

import random
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate, islice
from typing import NamedTuple

from mlproject.errors import UserError
from mlproject.images import row_groups
from mlproject.images.image_files import hashed
from mlproject.lake import snapshots
from mlproject.lake.snapshots import ActiveFile
from mlproject.storage.object_storage import blocks, one_line

_DRAWN = 4  # rows drawn for each wanted image: some rows have an error, or the bytes of another
_MISSING = (FileNotFoundError, NotADirectoryError)


class Sampled(NamedTuple):
    """An image of a lake."""

    image_id: str
    path: str
    content: bytes


def sample(lake: str, count: int, seed: int = 0) -> list[Sampled]:
    """The images that `draw` gives, in memory at once."""
    return list(draw(lake, count, seed))


def draw(
    lake: str, count: int, seed: int = 0, wanted: Callable[[str], bool] = lambda image_id: True
) -> Iterator[Sampled]:
    """Up to `count` images with different bytes, the same ones for a seed and a table version.

    Fewer where the table has fewer, or where most rows have an error, an unwanted image_id, the
    bytes of another row, or a file that is gone; none where there is no table yet.

    Raises:
        UserError: The table, or a file that it refers to, cannot be read now.
    """
    return islice(_draw(lake, count, seed, wanted), count)


def _draw(lake: str, count: int, seed: int, wanted: Callable[[str], bool]) -> Iterator[Sampled]:
    path = f"{lake}/images"
    if not snapshots.is_table(path):
        return
    files = sorted(snapshots.active_files(snapshots.open_table(path)), key=lambda file: file.path)
    ends = list(accumulate(file.rows for file in files))
    total = ends[-1] if ends else 0
    drawn = random.Random(seed).sample(range(total), min(total, _DRAWN * count))  # noqa: S311 - no secrets
    starts = [end - file.rows for end, file in zip(ends, files, strict=True)]
    at = [bisect_right(ends, row) for row in drawn]
    rows = [(files[place], row - starts[place]) for place, row in zip(at, drawn, strict=True)]
    found: set[str] = set()
    for start in range(0, len(rows), count):
        try:
            for one in _read(path, rows[start : start + count], wanted):
                if one.image_id not in found:
                    found.add(one.image_id)
                    yield one
        except OSError as error:
            raise UserError(
                f"Images of lake {lake!r} cannot be read now ({one_line(error)}). Try again later"
            ) from error


def _read(
    path: str, drawn: Sequence[tuple[ActiveFile, int]], wanted: Callable[[str], bool]
) -> Iterator[Sampled]:
    """The wanted images at these rows of data files."""
    places = defaultdict[str, set[int]](set)
    for file, row in drawn:
        places[file.path].add(row)
    for name, numbers in places.items():
        yield from filter(None, map(_image, row_groups.rows(path, name, wanted, numbers)))


def _image(row: dict[str, str | bytes | None]) -> Sampled | None:
    """The image of a row; None where it has no bytes, now or ever."""
    image_id, content = str(row["image_id"]), row["content"]
    if content is None and row["error"] is None:
        try:
            found, _, content = hashed(blocks(str(row["path"])))
        except _MISSING:
            return None
        content = content if found == image_id else None
    return Sampled(image_id, str(row["path"]), content) if isinstance(content, bytes) else None
