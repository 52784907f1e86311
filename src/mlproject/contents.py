"""The bytes of images for those who need them: from the table, or from the file it refers to."""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F
from pyspark.sql.pandas.types import to_arrow_schema

from mlproject.image_files import HELD_BYTES, hashed, in_batches
from mlproject.onboard.errors import CHANGED, GONE, TOO_MANY_BYTES
from mlproject.sources import open_path

WAITS = (1, 4)  # seconds before a file that cannot be read is tried again


def references(images: DataFrame) -> DataFrame:
    """The rows whose bytes are not in the table; files without any are skipped by statistics."""
    return images.where("content is null and error is null")


def contents(rows: DataFrame, images: DataFrame, counts: Any) -> DataFrame:
    """The bytes of images, those of references from their files: image_id, content, error.

    An image without content has an error: `gone` or `changed` when no path in `images` that held
    its bytes holds them now. An image whose file is there and cannot be read is left out.

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


def _fetcher(
    counts: Any, schema: pa.Schema
) -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """A function for mapInArrow: image_id, size_bytes, paths in; image_id, content, error out."""

    def fetch(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        asked = (row for batch in batches for row in batch.to_pylist())
        yield from in_batches(
            (row for ask in asked for row in _fetched(**ask, counts=counts)), schema
        )

    return fetch


def _fetched(
    image_id: str, size_bytes: int, paths: list[str], counts: Any
) -> Iterator[dict[str, Any]]:
    """The bytes of one image from the first path that still holds them, or why there are none."""
    row = {"image_id": image_id, "content": None, "error": GONE}
    if size_bytes > HELD_BYTES:
        yield {**row, "error": TOO_MANY_BYTES}
        return
    for path in paths:
        try:
            found, _, content = _read_again(path)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError:
            counts.add(Counter(unreadable=1))
            return
        if found == image_id:
            yield {**row, "content": content, "error": None}
            return
        row["error"] = CHANGED
    yield row


def _read_again(path: str) -> tuple[str, int, bytes | None]:
    """As `hashed`; a file that cannot be read is tried again, as networks have their moments."""
    for wait in WAITS:
        try:
            return hashed(*open_path(path))
        except (FileNotFoundError, NotADirectoryError):
            raise
        except OSError:
            time.sleep(wait)
    return hashed(*open_path(path))
