"""The centre square of a decoded image: upright, RGB, resized, in little additional memory."""

import math
from typing import Any

import numpy as np
from PIL import ExifTags, Image
from PIL.Image import Resampling, Transpose

_STRIP_PIXELS = 1_000_000  # pixels converted to RGB at a time: 4 MB for each copy

# EXIF orientation -> the transposition that undoes it, and whether the upright image runs
# against the stored x axis and y axis. Source: EXIF 2.32, tag 0x0112.
_ORIENTATIONS: dict[int, tuple[Transpose | None, bool, bool]] = {
    1: (None, False, False),
    2: (Transpose.FLIP_LEFT_RIGHT, True, False),
    3: (Transpose.ROTATE_180, True, True),
    4: (Transpose.FLIP_TOP_BOTTOM, False, True),
    5: (Transpose.TRANSPOSE, False, False),
    6: (Transpose.ROTATE_270, False, True),
    7: (Transpose.TRANSVERSE, True, True),
    8: (Transpose.ROTATE_90, True, False),
}

# Modes with an alpha channel; others can have transparency in `info`.
_ALPHA_MODES = ("RGBA", "LA", "PA", "RGBa", "La")


def square(image: Image.Image, resize: int, crop: int) -> Image.Image:
    """The centre square (crop, crop) in RGB of the upright image, its short side made `resize`.

    Equals rotating upright, resizing (bilinear) and cropping, but only the needed part is resized,
    and converted to RGB strip by strip: a 1 x 10,000 image costs nothing, and a large one no second
    copy. The image is loaded, of any mode; `crop` is at most `resize` (pixels).
    """
    transposition, against_x, against_y = _ORIENTATIONS[_orientation(image)]
    width, height = image.size
    # Source of int() and round(): torchvision.transforms.functional, resize and center_crop.
    long_side = int(resize * max(width, height) / min(width, height))
    wide, high = (resize, long_side) if width <= height else (long_side, resize)
    left, top = round((wide - crop) / 2), round((high - crop) / 2)
    # The corner of the upright image is rounded: measured from the other side where it is flipped.
    left = wide - crop - left if against_x else left
    top = high - crop - top if against_y else top
    box = (
        left * width / wide,
        top * height / high,
        min((left + crop) * width / wide, width),
        min((top + crop) * height / high, height),
    )
    if image.mode in ("RGB", "L") and "transparency" not in image.info:
        pixels = image.resize((crop, crop), Resampling.BILINEAR, box).convert("RGB")
    else:
        pixels = _by_strips(image, box, crop)
    return pixels if transposition is None else pixels.transpose(transposition)


def _orientation(image: Image.Image) -> int:
    """EXIF orientation 1 to 8; 1 where there is none or it is broken."""
    try:
        value = image.getexif().get(ExifTags.Base.Orientation, 1)
        return value if value in _ORIENTATIONS else 1
    except MemoryError:  # no fault of the image
        raise
    except Exception:  # noqa: BLE001 - broken EXIF raises any exception; the image is kept
        return 1


def _by_strips(
    image: Image.Image, box: tuple[float, float, float, float], crop: int
) -> Image.Image:
    """`convert("RGB").resize((crop, crop), box=box)` with a strip of the image at a time.

    Pillow resizes in two passes, first along x: here the first pass is done for each strip, and the
    second for all. The result is bit-identical.
    """
    x0, y0, x1, y1 = box
    # The bilinear filter reaches one output pixel beyond the box, and one input pixel at least.
    # Source: Pillow's Resample.c, precompute_coeffs.
    reach_x, reach_y = max(1.0, (x1 - x0) / crop) + 1, max(1.0, (y1 - y0) / crop) + 1
    first_x, last_x = max(0, math.floor(x0 - reach_x)), min(image.width, math.ceil(x1 + reach_x))
    first_y, last_y = max(0, math.floor(y0 - reach_y)), min(image.height, math.ceil(y1 + reach_y))
    rows = max(1, _STRIP_PIXELS // (last_x - first_x))
    white = _white(image)
    narrow = Image.new("RGB", (crop, last_y - first_y))
    for top in range(first_y, last_y, rows):
        part = image.crop((first_x, top, last_x, min(top + rows, last_y)))
        strip = _rgb(part, white)
        strip_box = (x0 - first_x, 0, x1 - first_x, strip.height)
        narrow.paste(
            strip.resize((crop, strip.height), Resampling.BILINEAR, strip_box),
            (0, top - first_y),
        )
    return narrow.resize((crop, crop), Resampling.BILINEAR, (0, y0 - first_y, crop, y1 - first_y))


def _rgb(image: Image.Image, white: float) -> Image.Image:
    """The image in RGB, transparent parts on white; numbers above 8 bits scaled, not clipped."""
    if image.mode.startswith(("I", "F")):
        return _grey(np.asarray(image), white, image.info.get("transparency"))
    if image.mode in _ALPHA_MODES or "transparency" in image.info:
        # Pillow cannot convert premultiplied grey to RGBA directly.
        convertible = image.convert("LA") if image.mode == "La" else image
        ground = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(ground, convertible.convert("RGBA")).convert("RGB")
    return image.convert("RGB")


def _grey(levels: np.ndarray, white: float, transparent: Any) -> Image.Image:
    """Levels (H, W) of any number type in RGB: 0 is black, `white` is white."""
    with np.errstate(all="ignore"):  # levels of a float image may be infinite or NaN
        scaled = np.nan_to_num(levels.astype(np.float32) * (255 / white), posinf=255, neginf=0)
    grey = (np.clip(scaled, 0, 255) + 0.5).astype(np.uint8)
    if isinstance(transparent, int):  # the transparent grey level of a PNG
        grey[levels == transparent] = 255
    return Image.fromarray(grey, "L").convert("RGB")


def _white(image: Image.Image) -> float:
    """The level of white: 65535 for 16 bits; else the smallest usual range that contains the image.

    32-bit and float images do not state their range: 1 (floats), 255, 65535, 2**31 - 1, or, for
    larger floats, their maximum.
    """
    if image.mode.startswith("I;16"):
        return 65535.0
    if image.mode not in ("I", "F"):
        return 255.0
    extrema: Any = image.getextrema()
    brightest = float(extrema[1])
    ranges = (255.0, 65535.0, 2.0**31 - 1) if image.mode == "I" else (1.0, 255.0, 65535.0)
    return next(
        (white for white in ranges if brightest <= white),
        brightest if math.isfinite(brightest) else 65535.0,
    )
