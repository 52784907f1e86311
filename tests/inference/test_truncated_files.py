"""A file whose picture is whole is good without its end; half a picture is an error."""

import numpy as np
import pytest
from PIL import Image

from mlproject import inference
from mlproject.images import thumbnails
from tests.inference.test_decode import CONFIG, encoded

# Format, options, and the bytes of its end marker: BMP, WebP and TIFF have none.
FORMATS = [
    ("JPEG", {}, 2),
    ("JPEG", {"progressive": True}, 2),
    ("JPEG", {"progressive": True, "quality": 95, "subsampling": 0}, 2),
    ("JPEG", {"progressive": True, "optimize": True, "quality": 30}, 2),
    ("PNG", {}, 12),
    ("GIF", {}, 1),
    ("BMP", {}, 0),
    ("WEBP", {}, 0),
    ("TIFF", {}, 0),
    ("TIFF", {"compression": "tiff_lzw"}, 0),
]


def noise(number):
    """An image whose last bytes matter."""
    pixels = np.random.default_rng(number).integers(0, 256, (90, 120, 3))
    return Image.fromarray(pixels.astype(np.uint8))


@pytest.mark.parametrize(("kind", "options", "end"), FORMATS)
def test_a_whole_picture_without_its_end_marker_is_good(kind, options, end):
    for number in range(5):
        content = encoded(noise(number), kind, **options)
        whole, _ = inference.decode(content, CONFIG)
        for count in range(end + 1):
            found, error = inference.decode(content[: len(content) - count], CONFIG)
            assert "" == error, (number, count)
            assert np.array_equal(whole, found)
        assert np.array_equal(whole, inference.decode(content + b"\0" * 100, CONFIG)[0])


@pytest.mark.parametrize(("kind", "options", "end"), FORMATS)
def test_half_a_picture_is_an_error_and_has_no_thumbnail(kind, options, end):
    for number in range(5):
        content = encoded(noise(number), kind, **options)
        for share in (0.3, 0.5, 0.9, 0.97):
            part = content[: int(len(content) * share)]
            assert (None, "undecodable") == inference.decode(part, CONFIG), (number, share)
            assert thumbnails.jpeg(part, 32) is None


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_a_file_of_its_header_alone_is_an_error(kind):
    content = encoded(noise(0), kind)
    start = content.index(b"\xff\xda" if kind == "JPEG" else b"IDAT") + 14
    assert (None, "undecodable") == inference.decode(content[:start], CONFIG)
