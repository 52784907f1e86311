"""PNG files with long texts and colour profiles are good photos; Pillow alone refuses them."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from mlproject import inference
from mlproject.images import thumbnails
from tests.inference.test_decode import CONFIG, drawing, encoded

LONG = b"a text of a design tool. " * 60_000  # 1.5 MB
SHORT = b"short"


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def compressed(kind, text):
    if kind == b"iTXt":
        return chunk(kind, b"key\0\1\0en\0key\0" + zlib.compress(text))
    return chunk(kind, b"key\0\0" + zlib.compress(text))


def with_chunks(png, *chunks, last=False):
    """A PNG with more chunks, before its pixels or after them."""
    place = png.index(b"IEND") - 4 if last else png.index(b"IDAT") - 4
    return png[:place] + b"".join(chunks) + png[place:]


CASES = {
    "compressed text": [compressed(b"zTXt", LONG)],
    "international text": [compressed(b"iTXt", LONG)],
    "colour profile": [compressed(b"iCCP", LONG)],
    "a bomb": [compressed(b"zTXt", bytes(200_000_000))],
    "many texts": [chunk(b"tEXt", b"key\0" + b"x" * 1_000_000)] * 70,
    "many compressed texts": [compressed(b"zTXt", b"x" * 1_000_000)] * 70,
}
AFTER = [case for case in CASES if case != "colour profile"]
PLAIN = encoded(drawing(60, 40))


def pixels(content):
    found, error = inference.decode(content, CONFIG)
    assert "" == error
    return found


@pytest.mark.parametrize(
    ("case", "last"), [*((case, False) for case in CASES), *((case, True) for case in AFTER)]
)
def test_a_png_with_long_texts_is_a_good_photo(case, last):
    content = with_chunks(PLAIN, *CASES[case], last=last)
    with pytest.raises(ValueError, match=r"(?i)text"), Image.open(io.BytesIO(content)) as image:
        image.load()
    assert np.array_equal(pixels(PLAIN), pixels(content))
    assert ("PNG", 60, 40, "") == inference.header(io.BytesIO(content))
    assert thumbnails.jpeg(content, 32) == thumbnails.jpeg(PLAIN, 32)


def test_what_else_is_in_the_file_stays():
    exif = Image.Exif()
    exif[0x0112] = 6
    png = encoded(drawing(60, 40), exif=exif)
    content = with_chunks(png, compressed(b"zTXt", LONG), compressed(b"zTXt", SHORT))
    left = inference.png_texts.without_long_texts(content)
    assert with_chunks(png, compressed(b"zTXt", SHORT)) == left
    assert np.array_equal(pixels(png), pixels(content))


def test_a_png_without_long_texts_and_any_other_bytes_are_given_back():
    texts = with_chunks(PLAIN, compressed(b"zTXt", SHORT), compressed(b"iTXt", SHORT))
    for content in (PLAIN, texts, PLAIN[:50], PLAIN[:8], b"", b"JPEG", PLAIN + b"more"):
        assert content is inference.png_texts.without_long_texts(content)


def test_no_limit_of_the_process_is_changed():
    pixels(with_chunks(PLAIN, *CASES["compressed text"]))
    assert (1024**2, 64 * 1024**2) == (
        PngImagePlugin.MAX_TEXT_CHUNK,
        PngImagePlugin.MAX_TEXT_MEMORY,
    )
