"""The bytes of images: from the table, or from the file that the table refers to."""

import hashlib
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from functools import cache, partial
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.sql.pandas.types import to_arrow_schema

from mlproject.errors import UserError
from mlproject.images.image_files import HELD_BYTES, hashed, held_bytes, in_batches
from mlproject.inference.errors import CHANGED, GONE, TOO_MANY_BYTES
from mlproject.lake.queries import instant, plain_files, query, quoted
from mlproject.lake.snapshots import Snapshot
from mlproject.storage.object_storage import blocks, require
from mlproject.storage.overlap import REMOTE, overlapped

_MILLISECOND = timedelta(milliseconds=1)
RETRY_WAITS_S = (1, 4)  # seconds before a file that cannot be read is read again
RETRIED_FILES = 3  # unreadable files of a server in a task, after which no file is read again
SERVER_TIMEOUT_S = 60  # time of a task with a server that fails; after it no file is read
MISSING = (FileNotFoundError, NotADirectoryError)
UNREADABLE = (OSError, UserError)  # raised when a server fails or refuses a file


def references(images: DataFrame) -> DataFrame:
    """The rows whose bytes are not in the table; Delta skips data files without such rows."""
    return images.where("content is null and error is null")


def inline_files(images: Snapshot, first: datetime, last: datetime) -> list[str]:
    """The data files with the images that were ingested between two times, all with their bytes.

    Empty where they cannot be read as they are, or some rows of them have no bytes. Reads the log
    only, in which times are milliseconds.
    """
    found = [
        file
        for file in plain_files(images) or ()
        if (least := (file.get("min") or {}).get("ingested_at")) is None
        or (least <= last and file["max"]["ingested_at"] + _MILLISECOND >= first)
    ]
    nulls = [(file.get("null_count") or {}).get("content") for file in found]
    return [file["path"] for file in found] if all(count == 0 for count in nulls) else []


def image_contents(rows: DataFrame, images: DataFrame, counts: Any) -> DataFrame:
    """The bytes of images, those of references from their files: image_id, content, error.

    The bytes of a reference come from the table where another row has them. An image without
    content has an error: `gone` or `changed` when none of its paths in `images` has its bytes any
    more. An image is left out when a path cannot be read now, its bucket is missing, or its folder
    is empty, like that of a disk that is not mounted.

    Args:
        rows: Rows of `images`.
        images: The table of these rows, at one version.
        counts: Counts the images that are left out (`unreadable`), see `image_files.counts`.
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
    paths = (
        images.select("image_id", "ingested_at", "path")
        .join(F.broadcast(wanted.select("image_id")), "image_id", "left_semi")
        .groupBy("image_id")
        .agg(newest_first.getField("path").alias("paths"))
    )
    slices = 4 * rows.sparkSession.sparkContext.defaultParallelism
    requests = wanted.join(paths, "image_id").repartition(slices)
    schema = rows.select(*columns).schema
    fetched = requests.mapInArrow(_fetcher(counts, to_arrow_schema(schema, timezone="UTC")), schema)
    return held.unionByName(fetched)


def read_image(lake: str, image_id: str) -> tuple[bytes | None, str]:
    """The bytes of one image and "", or None and the error that scoring gives it; without Spark.

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
    content, error, fault = _from_files(
        image_id, [row["path"] for row in rows], lambda path: hashed(blocks(path)), _exists
    )
    if fault:
        raise UserError(
            f"The file of image {image_id} cannot be read now: {fault}. Try again later"
        )
    return content, error


def _inline(rows: DataFrame, images: DataFrame) -> DataFrame | None:
    """For references, a row with the bytes of the same image, where there is one.

    Content is read only from ingest commits that can have such a row, and is never shuffled.
    """
    keys = ["image_id", "ingested_at", "path"]
    ids, own = rows.select("image_id"), rows.select(*keys)
    same = images.select(*keys).join(F.broadcast(ids), "image_id", "left_semi")
    others = same.join(F.broadcast(own), keys, "left_anti")
    commits = others.select(F.unix_micros("ingested_at")).distinct().collect()
    if not commits:
        return None
    times = [F.timestamp_micros(F.lit(time)) for (time,) in commits]
    inline = images.where(F.col("ingested_at").isin(times)).where("content is not null")
    first = F.min(F.struct("ingested_at", "path")).alias("first")
    first_rows = inline.join(F.broadcast(others), keys, "left_semi").groupBy("image_id").agg(first)
    return inline.join(F.broadcast(first_rows.select("image_id", "first.*")), keys, "left_semi")


def _fetcher(
    counts: Any, schema: pa.Schema
) -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """A function for mapInArrow: image_id, size_bytes, paths in; image_id, content, error out."""

    def fetch(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        exists = cache(_exists)  # one request for each bucket or folder in a task
        requests = (row for batch in batches for row in batch.to_pylist())
        failed_s = defaultdict[str, list[float]](list)  # bucket -> seconds of each file
        one = partial(_fetch, exists=exists, failed_s=failed_s)
        found = overlapped(one, requests, held_bytes, at_once=REMOTE)
        yield from in_batches(_counted(found, counts), schema)

    return fetch


def _counted(rows: Iterator[dict[str, Any] | None], counts: Any) -> Iterator[dict[str, Any]]:
    """The rows; images without one, which cannot be read now, are counted."""
    for row in rows:
        if row is None:
            counts.add(Counter(unreadable=1))
        else:
            yield row


def _fetch(
    request: dict[str, Any],
    *,
    exists: Callable[[str], bool],
    failed_s: defaultdict[str, list[float]],
) -> dict[str, Any] | None:
    """The row of one image: its bytes from the first path that has them, or an error.

    None where its bytes cannot be read now. Called by several threads.
    """
    row = {"image_id": request["image_id"], "content": None, "error": TOO_MANY_BYTES}
    if request["size_bytes"] > HELD_BYTES:
        return row

    def read(path: str) -> tuple[str, int, bytes | None]:
        failed, began = failed_s[_folder(path) if "://" in path else ""], time.monotonic()
        if sum(failed) > SERVER_TIMEOUT_S:
            raise TimeoutError
        try:
            return _read_with_retries(path, RETRY_WAITS_S if len(failed) < RETRIED_FILES else ())
        except MISSING:
            raise
        except UNREADABLE:
            failed.append(time.monotonic() - began)
            raise

    content, error, fault = _from_files(request["image_id"], request["paths"], read, exists)
    return None if fault else {**row, "content": content, "error": error or None}


def _from_files(
    image_id: str,
    paths: Sequence[str],
    read: Callable[[str], tuple[str, int, bytes | None]],
    exists: Callable[[str], bool],
) -> tuple[bytes | None, str, str]:
    """The bytes of an image from the first path that has them, "" and "".

    Else None, the error and "" when no path has them any more; or None, "" and the reason when that
    is not known now.
    """
    error, fault, empty = "", "", ""
    for path in paths:
        try:
            found, _, content = read(path)
        except MISSING:
            if exists(_folder(path)):
                error = error or GONE
            elif "://" in path:
                fault = fault or f"{_folder(path)} does not answer"
            else:  # a moved file is found at its new path
                empty = empty or f"the folder of {path} is empty, like a disk that is not mounted"
            continue
        except UNREADABLE as failure:
            fault = fault or f"{path} ({failure})"
            continue
        if found == image_id:
            return content, "" if content is not None else TOO_MANY_BYTES, ""
        error = CHANGED
    fault = fault or ("" if error else empty)
    return None, "" if fault else error or GONE, fault


def _folder(path: str) -> str:
    """The bucket of a path, or its folder."""
    return "/".join(path.split("/")[:3]) if "://" in path else str(Path(path).parent)


def _exists(folder: str) -> bool:
    """Whether a bucket answers or a folder has entries: else each of its files looks removed."""
    try:
        if "://" in folder:
            require(folder)
            return True
        # The parent of a removed folder is checked instead.
        parents = (Path(folder), *Path(folder).parents)
        return any(next(parent for parent in parents if parent.is_dir()).iterdir())
    except UNREADABLE:
        return False


def _read_with_retries(path: str, waits: Sequence[float]) -> tuple[str, int, bytes | None]:
    """As `hashed`; a file that cannot be read is read again after each wait, in seconds."""
    for wait in waits:
        try:
            return hashed(blocks(path))
        except MISSING:
            raise
        except UNREADABLE:
            time.sleep(wait)
    return hashed(blocks(path))
