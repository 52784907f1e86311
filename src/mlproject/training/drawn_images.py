"""Draws a small labelled image set, so that the project can be tried without photos.

Four landscapes (the folder's name is the label) that differ mainly in colour: a small network
trained from scratch for seconds tells colours apart well, and shapes hardly (under 0.5 of four
classes). The files are as mixed as a folder of real photos: sizes, formats, palettes, alpha,
CMYK, grey, rotated by an EXIF tag, duplicates, and a few that are broken.
"""

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter
from PIL.PngImagePlugin import putchunk

Colour = tuple[int, int, int]  # red, green, blue, each 0..255

SIDES = (96, 320)  # pixels: shortest and longest side of an image; larger ones take longer
DUPLICATES = 4  # files with the same bytes as another file
BROKEN = ("truncated.jpg", "notes.jpg", "too_many_pixels.png", "empty.jpg")
EXIF_ORIENTATION = 0x0112  # Source: EXIF 2.32, table 4
# EXIF orientation -> how an upright image is stored with it, the inverse of what viewers apply.
STORED_AS = {
    3: Image.Transpose.ROTATE_180,
    6: Image.Transpose.ROTATE_90,
    8: Image.Transpose.ROTATE_270,
}
# The files of one class repeat this list: (suffix, mode, EXIF orientation).
FORMATS = (
    ("jpg", "RGB", 1),
    ("jpg", "RGB", 6),
    ("png", "RGB", 1),
    ("jpg", "RGB", 1),
    ("webp", "RGB", 1),
    ("jpg", "RGB", 1),
    ("gif", "P", 1),
    ("jpg", "RGB", 1),
    ("png", "RGBA", 1),
    ("jpg", "RGB", 8),
    ("bmp", "RGB", 1),
    ("jpg", "RGB", 1),
    ("tiff", "RGB", 1),
    ("jpg", "CMYK", 1),
    ("png", "P", 1),
    ("jpg", "RGB", 3),
)
GREY_NUMBER = 5  # this image of every second class is grey: rare, as in a real folder


def draw(folder: Path, *, images: int = 240, seed: int = 0) -> None:
    """Fills a folder with the set, one sub-folder for each class.

    Every file has its own random numbers and is written atomically: an incomplete set is completed,
    and an existing file, changed or not, is kept. Each class has as many of the different images;
    `DUPLICATES` and `BROKEN` are added. The same seed gives the same bytes with the same Pillow.
    """
    per_class = -(-images // len(SCENES))
    for class_number, label in enumerate(SCENES):
        (folder / label).mkdir(parents=True, exist_ok=True)
        for number in range(per_class):
            suffix, mode, orientation = FORMATS[number % len(FORMATS)]
            if number == GREY_NUMBER and class_number % 2:
                suffix, mode = "png", "LA"
            path = folder / label / f"{label}_{number:04d}.{suffix}"
            if not path.exists():
                rng = np.random.default_rng([seed, class_number, number])
                _write(path, _encoded(_picture(label, rng), suffix, mode, orientation))
    copies = [f"copy_{number}.jpg" for number in range(DUPLICATES)]
    for number, name in enumerate([*copies, *BROKEN]):
        label = list(SCENES)[number % len(SCENES)]
        healthy, path = folder / label / f"{label}_0000.jpg", folder / label / name
        if not path.exists():
            _write(path, _changed(name, healthy.read_bytes()))


def _write(path: Path, content: bytes) -> None:
    part = path.with_name(f".{path.name}.part")
    part.write_bytes(content)
    part.replace(path)


def _picture(label: str, rng: np.random.Generator) -> Image.Image:
    """One upright RGB image of a class."""
    low, high = SIDES
    width, height = (int(side) for side in rng.integers(low, high + 1, size=2))
    picture = SCENES[label](rng, width, height)
    picture = picture.filter(ImageFilter.GaussianBlur(0.6))
    pixels = np.asarray(picture, dtype=np.float32)  # (H, W, 3), 0..255
    pixels = pixels * rng.uniform(0.85, 1.12)  # exposure
    grain = rng.uniform(2, 9) * rng.standard_normal(pixels.shape, np.float32)  # sensor noise
    return Image.fromarray(np.clip(pixels + grain, 0, 255).astype(np.uint8))


def _encoded(picture: Image.Image, suffix: str, mode: str, orientation: int) -> bytes:
    """An image as the bytes of a file, in one of the formats of real folders."""
    options: dict[str, object] = {}
    if orientation in STORED_AS:
        picture = picture.transpose(STORED_AS[orientation])
        exif = Image.Exif()
        exif[EXIF_ORIENTATION] = orientation
        options["exif"] = exif
    if mode == "P":
        picture = picture.quantize(64)
    elif mode == "RGBA":  # round corners: transparent, the colour of the picture still below
        alpha = Image.new("L", picture.size, 0)
        ImageDraw.Draw(alpha).rounded_rectangle(
            (0, 0, picture.width - 1, picture.height - 1), radius=12, fill=255
        )
        picture.putalpha(alpha)
    elif mode != "RGB":
        picture = picture.convert(mode)
    if suffix in {"jpg", "webp"}:
        options["quality"] = 85
    encoding = {"jpg": "JPEG"}.get(suffix, suffix.upper())
    buffer = io.BytesIO()
    picture.save(buffer, encoding, **options)
    return buffer.getvalue()


def _changed(name: str, content: bytes) -> bytes:
    """The content of one of the `BROKEN` files, else the unchanged content of a healthy one."""
    broken = {
        "truncated.jpg": content[: len(content) // 2],
        "notes.jpg": b"Not a picture: somebody's notes, saved under the wrong name.\n",
        "too_many_pixels.png": _huge_png(),
        "empty.jpg": b"",
    }
    return broken.get(name, content)


def _huge_png() -> bytes:
    """A tiny PNG whose header claims more pixels than a reader should allocate."""
    buffer = io.BytesIO()
    buffer.write(b"\x89PNG\r\n\x1a\n")
    # One bit a pixel, grey.
    putchunk(buffer, b"IHDR", struct.pack(">IIBBBBB", 60_000, 60_000, 1, 0, 0, 0, 0))
    putchunk(buffer, b"IDAT", zlib.compress(b"\0" * 1024))
    putchunk(buffer, b"IEND")
    return buffer.getvalue()


def _shade(rng: np.random.Generator, colour: Colour, spread: int = 14) -> Colour:
    """A colour near another one, by at most `spread` levels a channel."""
    red, green, blue = (
        int(np.clip(level + rng.integers(-spread, spread + 1), 0, 255)) for level in colour
    )
    return red, green, blue


def _gradient(width: int, height: int, *stops: Colour) -> Image.Image:
    """Colours from top to bottom, blended."""
    rows = np.linspace(0, len(stops) - 1, max(height, 2))
    column = np.stack(
        [np.interp(rows, range(len(stops)), [stop[band] for stop in stops]) for band in range(3)],
        axis=-1,
    )  # (H, 3)
    pixels = np.broadcast_to(column[:height, None], (height, width, 3))
    return Image.fromarray(pixels.astype(np.uint8))


def _hill(
    rng: np.random.Generator, size: tuple[int, int], top: float, swing: float
) -> list[tuple[float, float]]:
    """The outline, in px, of ground whose edge swings around `top` (a share of the height)."""
    width, height = size
    x = np.linspace(0, width, 24)
    phases, speeds = rng.uniform(0, 2 * np.pi, 2), rng.uniform((0.5, 2), (1.5, 4))
    wave = sum(np.sin(2 * np.pi * s * x / width + p) for s, p in zip(speeds, phases, strict=True))
    y = height * (top + swing * wave / 2)
    return [(0, height), *zip(x.tolist(), y.tolist(), strict=True), (width, height)]


def _desert(rng: np.random.Generator, width: int, height: int) -> Image.Image:
    """Sand dunes under a pale sun, and a cactus."""
    sky = _shade(rng, (246, 214, 120)), _shade(rng, (252, 238, 190), 8)
    picture = _gradient(width, height, *sky)
    pen = ImageDraw.Draw(picture)
    side = min(width, height)
    sun = (rng.uniform(0.1, 0.9) * width, rng.uniform(0.1, 0.3) * height)
    pen.circle(sun, side * 0.08, fill=(255, 250, 225))
    for depth, sand in enumerate(((228, 184, 92), (212, 160, 66), (190, 136, 50))):
        pen.polygon(_hill(rng, picture.size, 0.45 + 0.17 * depth, 0.1), fill=_shade(rng, sand))
    x, foot, tall = rng.uniform(0.15, 0.85) * width, rng.uniform(0.7, 0.95) * height, side * 0.25
    thick, green = max(2, round(side * 0.035)), _shade(rng, (92, 112, 52))
    pen.line((x, foot, x, foot - tall), fill=green, width=thick)
    for way in (-1, 1):
        elbow, level = x + way * tall * 0.3, foot - tall * rng.uniform(0.35, 0.6)
        pen.line((x, level, elbow, level, elbow, level - tall * 0.25), fill=green, width=thick)
    return picture


def _forest(rng: np.random.Generator, width: int, height: int) -> Image.Image:
    """Rows of firs, darker as they come nearer, in a green haze."""
    picture = _gradient(width, height, _shade(rng, (178, 216, 176)), _shade(rng, (96, 150, 88)))
    pen = ImageDraw.Draw(picture)
    for depth, leaf in enumerate(((92, 152, 82), (56, 122, 54), (28, 86, 36))):
        foot, tall = height * (0.55 + 0.2 * depth), height * (0.3 + 0.12 * depth)
        pen.rectangle((0, foot, width, height), fill=_shade(rng, leaf))
        for x in np.arange(0, width, tall * 0.4):
            centre, top = x + rng.uniform(-0.1, 0.1) * tall, foot - tall * rng.uniform(0.75, 1.1)
            half = tall * 0.03
            trunk = (centre - half, foot - tall * 0.1, centre + half, foot + tall * 0.08)
            pen.rectangle(trunk, fill=_shade(rng, (84, 62, 36)))
            green = _shade(rng, leaf)
            for tier in (0.0, 0.25, 0.5):
                start, reach = top + tier * tall, tall * (0.12 + 0.16 * tier)
                low = start + tall * 0.4
                corners = [(centre, start), (centre - reach, low), (centre + reach, low)]
                pen.polygon(corners, fill=green)
    return picture


def _ocean(rng: np.random.Generator, width: int, height: int) -> Image.Image:
    """Blue water under a blue sky, waves, and a sailing boat."""
    horizon = round(height * rng.uniform(0.3, 0.55))
    picture = _gradient(width, height, _shade(rng, (34, 120, 200)), _shade(rng, (10, 52, 120)))
    sky = _shade(rng, (96, 168, 234)), _shade(rng, (190, 222, 246), 8)
    picture.paste(_gradient(width, horizon, *sky))
    pen = ImageDraw.Draw(picture)
    for _ in range(24):
        x, y = rng.uniform(0, width), rng.uniform(horizon + 4, height)
        half = 0.08 * width * (y - horizon) / (height - horizon) + 3
        pen.arc((x - half, y - 3, x + half, y + 3), 180, 360, fill=_shade(rng, (150, 198, 236)))
    tall = min(width, height) * rng.uniform(0.18, 0.32)
    x, foot = rng.uniform(0.25, 0.75) * width, horizon + rng.uniform(0.08, 0.3) * height
    pen.polygon([(x, foot - tall), (x, foot), (x + tall * 0.55, foot)], fill=(244, 244, 240))
    jib = [(x - 2, foot - tall * 0.8), (x - 2, foot), (x - tall * 0.35, foot)]
    pen.polygon(jib, fill=(224, 228, 232))
    deck, keel = foot + 2, foot + tall * 0.18
    hull = [(x - tall * 0.5, deck), (x + tall * 0.6, deck)]
    hull += [(x + tall * 0.4, keel), (x - tall * 0.35, keel)]
    pen.polygon(hull, fill=_shade(rng, (70, 58, 66)))
    return picture


def _sunset(rng: np.random.Generator, width: int, height: int) -> Image.Image:
    """A red and violet sky, the sun on the horizon, dark hills."""
    sky = ((70, 24, 92), (186, 38, 92), (244, 104, 40), (150, 30, 60))
    picture = _gradient(width, height, *(_shade(rng, colour) for colour in sky))
    pen = ImageDraw.Draw(picture)
    x, y, side = rng.uniform(0.2, 0.8) * width, height * rng.uniform(0.5, 0.65), min(width, height)
    for halo, glow in ((0.2, (250, 130, 50)), (0.15, (253, 160, 64)), (0.11, (255, 206, 96))):
        pen.circle((x, y), side * halo, fill=glow)
    pen.polygon(_hill(rng, picture.size, 0.7, 0.08), fill=_shade(rng, (84, 18, 58)))
    pen.polygon(_hill(rng, picture.size, 0.85, 0.06), fill=_shade(rng, (40, 10, 34)))
    return picture


SCENES: dict[str, Callable[[np.random.Generator, int, int], Image.Image]] = {
    "desert": _desert,
    "forest": _forest,
    "ocean": _ocean,
    "sunset": _sunset,
}
