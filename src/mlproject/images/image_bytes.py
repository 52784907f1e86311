"""The bytes of images in Spark: from the table, or from the file that the table refers to."""

from collections import Counter
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Any

import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.sql.pandas.types import to_arrow_schema

from mlproject.images.image_files import held_bytes, in_batches
from mlproject.images.referenced_files import fetcher
from mlproject.lake.queries import plain_files
from mlproject.lake.snapshots import Snapshot
from mlproject.storage.overlap import REMOTE, overlapped

_MILLISECOND = timedelta(milliseconds=1)


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
        requests = (row for batch in batches for row in batch.to_pylist())
        found = overlapped(fetcher(), requests, held_bytes, at_once=REMOTE)
        yield from in_batches(_counted(found, counts), schema)

    return fetch


def _counted(rows: Iterator[dict[str, Any] | None], counts: Any) -> Iterator[dict[str, Any]]:
    """The rows; images without one, which cannot be read now, are counted."""
    for row in rows:
        if row is None:
            counts.add(Counter(unreadable=1))
        else:
            yield row
