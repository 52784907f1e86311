"""The bytes of images for those who need them: from the table, or from the file it refers to."""

import hashlib
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.sql.pandas.types import to_arrow_schema

from mlproject.errors import UserError
from mlproject.images.image_files import HELD_BYTES, hashed, in_batches
from mlproject.inference.errors import CHANGED, GONE, TOO_MANY_BYTES
from mlproject.integrations.object_storage import open_path, require
from mlproject.lake.queries import instant, query, quoted

WAITS = (1, 4)  # seconds before a file that cannot be read is tried again
PATIENT = 3  # unreadable files of a task after which none is waited for: their server is away
PATIENT_S = 60  # a task's time with a server that does not answer; then its files are not asked for
MISSING = (FileNotFoundError, NotADirectoryError)
AWAY = (OSError, UserError)  # what is raised of a server that is away, or a file that is refused


def references(images: DataFrame) -> DataFrame:
    """The rows whose bytes are not in the table; files without any are skipped by statistics."""
    return images.where("content is null and error is null")


def contents(rows: DataFrame, images: DataFrame, counts: Any) -> DataFrame:
    """The bytes of images, those of references from their files: image_id, content, error.

    The bytes of a reference come from the table where another row of it has them. An image without
    content has an error: `gone` or `changed` when no path in `images` that held its bytes holds
    them now. An image with a path that cannot be read now is left out, as is one whose bucket is
    not there or whose folder is empty, like that of a disk that is not mounted.

    Args:
        rows: Rows of `images`.
        images: The table that they are of, at one version.
        counts: As `counts` gives it; told of the images that are left out (`unreadable`).
    """
    columns = ["image_id", "content", "error"]
    if references(rows).isEmpty():
        return rows.select(*columns)
    held = rows.where("content is not null or error is not null").select(*columns)
    size = F.coalesce("size_bytes", F.lit(0)).alias("size_bytes")
    wanted = references(rows).select("image_id", size)
    inline = _inline(references(rows), images)
    if inline is not None:
        held = held.unionByName(inline.select(*columns))
        wanted = wanted.join(F.broadcast(inline.select("image_id")), "image_id", "left_anti")
    newest_first = F.sort_array(F.collect_list(F.struct("ingested_at", "path")), asc=False)
    places = (
        images.select("image_id", "ingested_at", "path")
        .join(F.broadcast(wanted.select("image_id")), "image_id", "left_semi")
        .groupBy("image_id")
        .agg(newest_first.getField("path").alias("paths"))
    )
    slices = 4 * rows.sparkSession.sparkContext.defaultParallelism
    asked = wanted.join(places, "image_id").repartition(slices)
    schema = rows.select(*columns).schema
    fetched = asked.mapInArrow(_fetcher(counts, to_arrow_schema(schema, timezone="UTC")), schema)
    return held.unionByName(fetched)


def of_image(lake: str, image_id: str) -> tuple[bytes | None, str]:
    """The bytes of one image, as `contents` would find them; without Spark.

    Returns:
        The bytes and ""; or None and the error that scoring gives such an image.

    Raises:
        UserError: The table's bytes are not those of the image_id, or a file cannot be read now.
    """
    # First where it lies, then one row after the other: only the files of that commit are read.
    where = f"image_id = {quoted(image_id)}"
    sql = f"SELECT path, ingested_at, error FROM images WHERE {where} ORDER BY ingested_at DESC"
    rows = query(lake, sql, ["images"]).to_pylist()
    for row in rows:
        one = f"path = {quoted(row['path'])} AND ingested_at = {instant(row['ingested_at'])}"
        sql = f"SELECT content FROM images WHERE {where} AND {one}"
        held = query(lake, sql, ["images"])["content"][0].as_py()
        if held is not None:
            if hashlib.sha256(held).hexdigest() != image_id:
                raise UserError(f"The bytes that the table has of {image_id} are others (sha256)")
            return held, ""
    if rows and rows[0]["error"]:
        return None, rows[0]["error"]
    content, error, fault = _from_files(
        image_id, [row["path"] for row in rows], lambda path: hashed(*open_path(path)), _is_there
    )
    if fault:
        raise UserError(f"The file of image {image_id} cannot be read now: {fault}")
    return content, error


def _inline(rows: DataFrame, images: DataFrame) -> DataFrame | None:
    """For references, a row of the same image that has its bytes, where there is one.

    Content is read only of ingest commits that such a row may be of, and never shuffled.
    """
    keys = ["image_id", "ingested_at", "path"]
    ids, own = rows.select("image_id"), rows.select(*keys)
    same = images.select(*keys).join(F.broadcast(ids), "image_id", "left_semi")
    others = same.join(F.broadcast(own), keys, "left_anti")
    commits = others.select(F.unix_micros("ingested_at")).distinct().collect()
    if not commits:
        return None
    times = [F.timestamp_micros(F.lit(time)) for (time,) in commits]
    there = images.where(F.col("ingested_at").isin(times)).where("content is not null")
    first = F.min(F.struct("ingested_at", "path")).alias("first")
    of_image = there.join(F.broadcast(others), keys, "left_semi").groupBy("image_id").agg(first)
    return there.join(F.broadcast(of_image.select("image_id", "first.*")), keys, "left_semi")


def _fetcher(
    counts: Any, schema: pa.Schema
) -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """A function for mapInArrow: image_id, size_bytes, paths in; image_id, content, error out."""

    def fetch(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        is_there = cache(_is_there)  # asked once a place and task
        asked = (row for batch in batches for row in batch.to_pylist())
        lost: defaultdict[str, list[float]] = defaultdict(list)  # seconds a file, of each server
        rows = (row for ask in asked for row in _fetched(ask, is_there, counts, lost))
        yield from in_batches(rows, schema)

    return fetch


def _fetched(
    ask: dict[str, Any],
    is_there: Callable[[str], bool],
    counts: Any,
    lost: defaultdict[str, list[float]],
) -> Iterator[dict[str, Any]]:
    """The bytes of one image from the first path that still holds them, or why there are none."""
    row = {"image_id": ask["image_id"], "content": None, "error": TOO_MANY_BYTES}
    if ask["size_bytes"] > HELD_BYTES:
        yield row
        return

    def read(path: str) -> tuple[str, int, bytes | None]:
        failed, began = lost[_place(path) if "://" in path else ""], time.monotonic()
        if sum(failed) > PATIENT_S:
            raise TimeoutError
        try:
            return _read_again(path, WAITS if len(failed) < PATIENT else ())
        except MISSING:
            raise
        except AWAY:
            failed.append(time.monotonic() - began)
            raise

    content, error, fault = _from_files(ask["image_id"], ask["paths"], read, is_there)
    if fault:
        counts.add(Counter(unreadable=1))
    else:
        yield {**row, "content": content, "error": error or None}


def _from_files(
    image_id: str,
    paths: Sequence[str],
    read: Callable[[str], tuple[str, int, bytes | None]],
    is_there: Callable[[str], bool],
) -> tuple[bytes | None, str, str]:
    """The bytes of an image from the first path that still holds them.

    Returns:
        The bytes; or None and the error of an image whose bytes no path holds any more; or, where
        that cannot be told now, neither and why.
    """
    error, fault, empty = "", "", ""
    for path in paths:
        try:
            found, _, content = read(path)
        except MISSING:
            if is_there(_place(path)):
                error = error or GONE
            elif "://" in path:
                fault = fault or f"{_place(path)} does not answer"
            else:  # of a file that was moved on, the place it came to tells
                empty = empty or f"{path} is in an empty folder, as of a disk that is not mounted"
            continue
        except AWAY as away:
            fault = fault or f"{path} ({away})"
            continue
        if found == image_id:
            return content, "" if content is not None else TOO_MANY_BYTES, ""
        error = CHANGED
    fault = fault or ("" if error else empty)
    return None, "" if fault else error or GONE, fault


def _place(path: str) -> str:
    """The bucket of a path, or its folder."""
    return "/".join(path.split("/")[:3]) if "://" in path else str(Path(path).parent)


def _is_there(place: str) -> bool:
    """Whether a bucket answers, or a folder holds anything: else each file of it looks removed."""
    try:
        if "://" in place:
            require(place)
            return True
        # Of a folder that was removed, the one above it tells.
        folder = next(parent for parent in (Path(place), *Path(place).parents) if parent.is_dir())
        return any(folder.iterdir())
    except AWAY:
        return False


def _read_again(path: str, waits: Sequence[float]) -> tuple[str, int, bytes | None]:
    """As `hashed`; a file that cannot be read is tried again, as networks have their moments."""
    for wait in waits:
        try:
            return hashed(*open_path(path))
        except MISSING:
            raise
        except AWAY:
            time.sleep(wait)
    return hashed(*open_path(path))
