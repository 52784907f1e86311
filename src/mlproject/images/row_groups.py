"""Rows of a data file of `images`, with their bytes: only the row groups that hold one are read."""

from collections.abc import Callable, Collection, Iterator
from typing import Any

import pyarrow.parquet as pq

from mlproject.storage.object_storage import open_path

_COLUMNS = ["image_id", "path", "content", "error"]


def rows(
    table: str,
    name: str,
    wanted: Callable[[str], bool],
    places: Collection[int] | None = None,
) -> Iterator[dict[str, Any]]:
    """The rows of wanted images in a data file: image_id, path, content and error.

    Args:
        table: Folder or URI of the table.
        name: Path of the file below it, as the file system has it.
        wanted: Takes an image_id; true = the row is wanted.
        places: Numbers of the rows to look at, from 0; None = all.

    Raises:
        OSError: The file cannot be read.
    """
    filesystem, folder = open_path(table)
    with filesystem.open_input_file(f"{folder}/{name}") as opened:
        parquet, first = pq.ParquetFile(opened), 0
        for group in range(parquet.num_row_groups):
            end = first + parquet.metadata.row_group(group).num_rows
            looked = range(first, end) if places is None else places
            inside = sorted(row - first for row in looked if first <= row < end)
            first = end
            if inside:
                ids = parquet.read_row_group(group, ["image_id"])["image_id"].to_pylist()
                inside = [row for row in inside if wanted(ids[row])]
            if inside:
                read = parquet.read_row_group(group, _COLUMNS)
                for row in inside:  # pyarrow 25's `take` knows no string views, as delta-rs writes
                    yield from read.slice(row, 1).to_pylist()
