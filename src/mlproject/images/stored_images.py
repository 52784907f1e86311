"""The bytes of chosen images of a lake, without Spark."""

import hashlib
from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Any, TypeVar
from urllib.parse import unquote

import pyarrow as pa

from mlproject.errors import UserError
from mlproject.images import row_groups
from mlproject.images.image_files import BATCH_BYTES, held_bytes
from mlproject.images.referenced_files import MISSING, fetcher, read_once
from mlproject.lake.queries import instant, query, quoted
from mlproject.lake.snapshots import Snapshot, open_table
from mlproject.storage.overlap import REMOTE, overlapped

Made = TypeVar("Made")

_MILLISECOND = timedelta(milliseconds=1)  # the log's times have no more digits


def read_image(lake: str, image_id: str) -> tuple[bytes | None, str]:
    """The bytes of one image and "", or None and the error that scoring gives it.

    Raises:
        UserError: The bytes in the table have another sha256, or a file cannot be read now.
    """
    # Row by row, so that only the data files of one ingest commit are read at a time.
    where = f"image_id = {quoted(image_id)}"
    sql = f"SELECT path, ingested_at, error FROM images WHERE {where} ORDER BY ingested_at DESC"
    rows = query(lake, sql, ["images"]).to_pylist()
    for row in rows:
        one = f"path = {quoted(row['path'])} AND ingested_at = {instant(row['ingested_at'])}"
        sql = f"SELECT content FROM images WHERE {where} AND {one}"
        held = query(lake, sql, ["images"])["content"][0].as_py()
        if held is not None:
            if hashlib.sha256(held).hexdigest() != image_id:
                raise UserError(
                    f"The bytes of image {image_id} in the table have another sha256: the "
                    "table is damaged. Restore it from a copy"
                )
            return held, ""
    if rows and rows[0]["error"]:
        return None, rows[0]["error"]
    content, error, fault = read_once(image_id, [row["path"] for row in rows])
    if fault:
        raise UserError(
            f"The file of image {image_id} cannot be read now: {fault}. Try again later"
        )
    return content, error


def rows(images: Snapshot, image_ids: Iterable[str]) -> list[dict[str, Any]]:
    """What `each` takes: the rows of a few hundred images in the table, in the order of ingest.

    Raises:
        MissingFilesError: This version of the table cannot be read, and there is a newer one.
        UserError: The table cannot be read.
    """
    ids = ", ".join(map(quoted, image_ids))
    if not ids:
        return []
    columns = "image_id, path, size_bytes, ingested_at, error"
    sql = f"SELECT {columns} FROM images WHERE image_id IN ({ids}) ORDER BY ingested_at, path"
    return list(query(images.lake, sql, images=images).to_pylist())


def each(
    images: Snapshot, rows: Iterable[Mapping[str, Any]], made: Callable[[bytes], Made]
) -> dict[str, Made]:
    """What a function gives for the bytes of each of a few hundred images that can be read now.

    It runs in threads, each of which holds one file, or a row group of the table.

    Args:
        images: The table of images.
        rows: All rows of these images, as `rows` gives them.
        made: Called with the bytes of each image.

    Raises:
        UserError: The table cannot be read.
    """
    rows = sorted(rows, key=lambda row: (row["ingested_at"], row["path"]))
    if not rows:
        return {}
    found = dict[str, Made]()

    def from_table(file: tuple[str, set[str]]) -> None:
        name, wanted = file
        missing = wanted - found.keys()
        if missing:
            with suppress(*MISSING):  # an erasure may remove the file meanwhile
                for row in row_groups.rows(images.path, name, missing.__contains__):
                    if row["content"] is not None:
                        found[row["image_id"]] = made(row["content"])

    for _ in overlapped(from_table, _files(images, rows), lambda file: BATCH_BYTES, at_once=REMOTE):
        pass
    fetch = fetcher()

    def from_files(request: dict[str, Any]) -> None:
        row = fetch(request)
        if row and row["content"] is not None:
            found[row["image_id"]] = made(row["content"])

    missing = _requests([row for row in rows if row["image_id"] not in found])
    for _ in overlapped(from_files, missing, held_bytes, at_once=REMOTE):
        pass
    return found


def _files(images: Snapshot, rows: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, set[str]]]:
    """The data files that may hold these rows, which are by time, with the ids of those.

    Files without the bytes of any image are left out.
    """
    times = [row["ingested_at"] for row in rows]
    logged = pa.table(open_table(images.path, images.version).get_add_actions(flatten=True))
    names = ("path", "num_records", "min.ingested_at", "max.ingested_at", "null_count.content")
    columns = (
        logged[name].to_pylist() if name in logged.column_names else [None] * logged.num_rows
        for name in names
    )
    for path, count, least, most, nulls in zip(*columns, strict=True):
        first = bisect_left(times, least) if least else 0
        end = bisect_right(times, most + _MILLISECOND) if most else len(rows)
        wanted = {row["image_id"] for row in rows[first:end]}
        if wanted and (nulls is None or nulls != count):
            yield unquote(path), wanted


def _requests(rows: Iterable[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """What `fetcher` takes, for each image of these rows without an error; newest path first."""
    paths = defaultdict[str, list[str]](list)
    sizes = dict[str, int]()
    for row in rows:
        if row["error"] is None:
            paths[row["image_id"]].insert(0, row["path"])
            sizes[row["image_id"]] = row["size_bytes"] or 0
    for image_id, own in paths.items():
        yield {"image_id": image_id, "size_bytes": sizes[image_id], "paths": own}
