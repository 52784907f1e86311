"""Reference images: drawn in memory, in the formats of photos, and two that are broken."""

import io
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from mlproject.inference.errors import EMPTY, UNDECODABLE


class ReferenceImage(NamedTuple):
    """One encoded image that every version is tried on, and its error code; "" = a label."""

    name: str
    content: bytes
    error: str


def reference_images() -> list[ReferenceImage]:
    """The reference images, the same bytes on each call."""
    photo = _drawing(320, 240)
    transparent = photo.convert("RGBA")
    transparent.putalpha(photo.convert("L"))
    rotated = Image.Exif()
    rotated[0x0112] = 6  # orientation: rotated by 90 degrees. Source: EXIF 2.32
    levels = np.linspace(0, 65535, 64 * 64).reshape(64, 64).astype(np.uint16)
    pictures = {
        "landscape JPEG": _encoded(photo, "JPEG", quality=90),
        "portrait PNG": _encoded(_drawing(150, 400), "PNG"),
        "rotated JPEG": _encoded(photo, "JPEG", exif=rotated),
        "CMYK JPEG": _encoded(photo.convert("CMYK"), "JPEG"),
        "grey PNG": _encoded(photo.convert("L"), "PNG"),
        "16-bit grey PNG": _encoded(Image.fromarray(levels), "PNG"),
        "transparent PNG": _encoded(transparent, "PNG"),
        "palette GIF": _encoded(photo.convert("P"), "GIF"),
        "WebP": _encoded(photo, "WEBP"),
        "BMP": _encoded(_drawing(40, 30), "BMP"),
        "single pixel": _encoded(_drawing(1, 1), "PNG"),
        "1 by 500 pixels": _encoded(_drawing(1, 500), "PNG"),
    }
    png = pictures["portrait PNG"]
    return [
        *(ReferenceImage(name, content, "") for name, content in pictures.items()),
        ReferenceImage("PNG cut in half", png[: len(png) // 2], UNDECODABLE),
        ReferenceImage("empty file", b"", EMPTY),
    ]


def example() -> bytes:
    """A small PNG, for a model's input example."""
    return _encoded(_drawing(32, 32), "PNG")


def drawn_squares(count: int, side: int) -> np.ndarray:
    """Soft patches of random colours, always the same: uint8 (count, side, side, 3)."""
    colours = np.random.default_rng(0).integers(0, 256, (count, 5, 5, 3), np.uint8)
    size = (side, side)
    return np.stack([np.asarray(Image.fromarray(one).resize(size)) for one in colours])


def _drawing(width: int, height: int) -> Image.Image:
    """Two colour gradients and a disc, RGB."""
    y, x = np.mgrid[0:height, 0:width]
    disc = (x - width / 2) ** 2 + (y - height / 2) ** 2 < (min(width, height) / 3) ** 2
    channels = (x * 255 // width, y * 255 // height, np.where(disc, 220, 60))
    return Image.fromarray(np.stack(channels, axis=-1).astype(np.uint8))


def _encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()
