"""Thumbnails: small JPEGs of images, made in Spark tasks; the driver receives no photo.

Imports little on purpose: Spark's Python workers import it too.
"""

import io
from collections.abc import Iterator, Mapping

import pyarrow as pa
from PIL import Image
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from mlproject.inference import DEFAULTS, decode

PIXELS = 160  # side of the square; at 80 CSS pixels sharp on screens with 2 device pixels each
QUALITY = 80  # JPEG quality of 100; a photo of this size takes about 6 kB


def wanted(chosen: Mapping[str, tuple[str, int]]) -> Column:
    """A condition on rows of `images`: one row of each chosen image. Delta skips other files.

    The images, a few hundred at most, are given as image_id -> path and `ingested_at` (microseconds
    since 1970) of a row.
    """
    times = sorted({time for _, time in chosen.values()})
    return (
        F.col("ingested_at").isin([F.timestamp_micros(F.lit(time)) for time in times])
        & F.col("path").isin(sorted({path for path, _ in chosen.values()}))
        & F.col("image_id").isin(sorted(chosen))
    )


def thumbnails(contents: DataFrame) -> dict[str, bytes]:
    """image_id -> JPEG of the centre square, for each of a few hundred images that is decodable."""
    made = contents.select("image_id", "content").mapInArrow(
        _shrink, "image_id string, jpeg binary"
    )
    return {row.image_id: bytes(row.jpeg) for row in made.collect()}


def _shrink(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """For mapInArrow: (image_id, content) to (image_id, jpeg), without undecodable images."""
    for batch in batches:
        shrunk = [jpeg(content.as_py(), PIXELS) for content in batch["content"]]
        columns = [batch["image_id"], pa.array(shrunk, pa.binary())]
        made = pa.RecordBatch.from_arrays(columns, ["image_id", "jpeg"])
        yield made.filter(made["jpeg"].is_valid())


def jpeg(content: bytes | None, side: int) -> bytes | None:
    """A JPEG of an image's centre square, `side` pixels wide; None when it cannot be decoded."""
    pixels, _ = decode(content, {**DEFAULTS, "resize": side, "crop": side})
    if pixels is None:
        return None
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=QUALITY, optimize=True)
    return file.getvalue()
