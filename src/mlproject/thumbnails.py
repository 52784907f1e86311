"""Small JPEG pictures of chosen images, made in Spark tasks: no photo comes to the driver.

Imports little on purpose: the workers that make the pictures import it too.
"""

import io
from collections.abc import Iterator, Mapping

import pyarrow as pa
from PIL import Image
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from mlproject.onboard import DEFAULTS, decode

PIXELS = 160  # the side of the square: 80 to 160 CSS pixels wide on screens of up to 2 dots each
QUALITY = 80  # of 100; a photo of this size takes about 6 kB


def thumbnails(images: DataFrame, chosen: Mapping[str, tuple[str, int]]) -> dict[str, bytes]:
    """A JPEG of the centre square of each chosen image; none of those that cannot be decoded.

    Args:
        images: Rows of `images`, pinned.
        chosen: image_id -> path and `ingested_at` (microseconds since 1970) of one of its rows;
            a few hundred at most. Delta skips the files of all other times.
    """
    if not chosen:
        return {}
    times = sorted({time for _, time in chosen.values()})
    wanted = (
        F.col("ingested_at").isin([F.timestamp_micros(F.lit(time)) for time in times])
        & F.col("path").isin(sorted({path for path, _ in chosen.values()}))
        & F.col("image_id").isin(sorted(chosen))
        & F.col("content").isNotNull()
    )
    read = images.where(wanted).select("image_id", "content")
    made = read.mapInArrow(shrink, "image_id string, jpeg binary").collect()
    return {row.image_id: bytes(row.jpeg) for row in made}


def shrink(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """For mapInArrow: (image_id, content) to (image_id, jpeg), without those that have none."""
    config = {**DEFAULTS, "resize": PIXELS, "crop": PIXELS}
    for batch in batches:
        image_ids, jpegs = [], []
        for image_id, content in zip(batch["image_id"], batch["content"], strict=True):
            pixels, _ = decode(content.as_py(), config)
            if pixels is None:
                continue
            file = io.BytesIO()
            Image.fromarray(pixels).save(file, "JPEG", quality=QUALITY, optimize=True)
            image_ids.append(image_id.as_py())
            jpegs.append(file.getvalue())
        yield pa.RecordBatch.from_arrays(
            [pa.array(image_ids, pa.string()), pa.array(jpegs, pa.binary())], ["image_id", "jpeg"]
        )
