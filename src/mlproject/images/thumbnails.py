"""Thumbnails: small JPEGs of images. Imports little: Spark's Python workers import it too."""

import io

from PIL import Image

from mlproject.inference import DEFAULTS, decode

PIXELS = 160  # side of the square; at 80 CSS pixels sharp on screens with 2 device pixels each
QUALITY = 80  # JPEG quality of 100; a photo of this size takes about 6 kB


def jpeg(content: bytes | None, side: int) -> bytes | None:
    """A JPEG of an image's centre square, `side` pixels wide; None when it cannot be decoded."""
    pixels, _ = decode(content, {**DEFAULTS, "resize": side, "crop": side})
    if pixels is None:
        return None
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=QUALITY, optimize=True)
    return file.getvalue()
