"""Golden images: drawn in memory, of the kinds that photos come in, and two that are broken."""

import io
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from mlproject.inference.errors import EMPTY, UNDECODABLE


class GoldenImage(NamedTuple):
    """One image that every version must answer.

    Attributes:
        name: What it is, in words.
        content: The encoded image.
        error: The code that the version must answer; "" for labels and scores.
    """

    name: str
    content: bytes
    error: str


def reference_images() -> list[GoldenImage]:
    """The golden images, the same bytes on each call."""
    photo = _drawing(320, 240)
    levels = np.linspace(0, 65535, 64 * 64).reshape(64, 64).astype(np.uint16)
    pictures = {
        "landscape JPEG": _encoded(photo, "JPEG", quality=90),
        "portrait PNG": _encoded(_drawing(150, 400), "PNG"),
        "turned JPEG": _encoded(photo, "JPEG", exif=_turned()),
        "CMYK JPEG": _encoded(photo.convert("CMYK"), "JPEG"),
        "grey PNG": _encoded(photo.convert("L"), "PNG"),
        "16-bit grey PNG": _encoded(Image.fromarray(levels), "PNG"),
        "transparent PNG": _encoded(_transparent(photo), "PNG"),
        "palette GIF": _encoded(photo.convert("P"), "GIF"),
        "WebP": _encoded(photo, "WEBP"),
        "BMP": _encoded(_drawing(40, 30), "BMP"),
        "single pixel": _encoded(_drawing(1, 1), "PNG"),
        "thread, 1 by 500 pixels": _encoded(_drawing(1, 500), "PNG"),
    }
    png = pictures["portrait PNG"]
    return [
        *(GoldenImage(name, content, "") for name, content in pictures.items()),
        GoldenImage("PNG cut in half", png[: len(png) // 2], UNDECODABLE),
        GoldenImage("empty file", b"", EMPTY),
    ]


def example() -> bytes:
    """A small PNG, for a model's input example."""
    return _encoded(_drawing(32, 32), "PNG")


def _drawing(width: int, height: int) -> Image.Image:
    """Two colour gradients and a disc, RGB."""
    y, x = np.mgrid[0:height, 0:width]
    disc = (x - width / 2) ** 2 + (y - height / 2) ** 2 < (min(width, height) / 3) ** 2
    channels = (x * 255 // width, y * 255 // height, np.where(disc, 220, 60))
    return Image.fromarray(np.stack(channels, axis=-1).astype(np.uint8))


def _transparent(image: Image.Image) -> Image.Image:
    seen = image.convert("RGBA")
    seen.putalpha(image.convert("L"))
    return seen


def _turned() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: turned a quarter. Source: EXIF 2.32
    return exif


def _encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()
