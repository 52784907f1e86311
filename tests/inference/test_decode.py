"""Decoding: any bytes to a square of RGB pixels or a code; headers."""

import io
import math

import numpy as np
import pytest
from PIL import Image, ImageOps

from mlproject import inference

CONFIG = {**inference.DEFAULTS, "resize": 256, "crop": 224}


def encoded(image, kind="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def plain(image, resize=256, crop=224):
    """The usual way with Pillow alone: resize the short side, crop the centre."""
    width, height = image.size
    long_side = int(resize * max(width, height) / min(width, height))
    size = (resize, long_side) if width <= height else (long_side, resize)
    left, top = round((size[0] - crop) / 2), round((size[1] - crop) / 2)
    whole = image.convert("RGB").resize(size, Image.Resampling.BILINEAR)
    return np.asarray(whole.crop((left, top, left + crop, top + crop)))


def drawing(width, height, seed=0):
    noise = np.random.default_rng(seed).integers(0, 256, (9, 7, 3)).astype(np.uint8)
    return Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)


def largest_difference(one, other):
    return int(np.abs(np.asarray(one, int) - np.asarray(other, int)).max())


def decoded(content, **changes):
    pixels, error = inference.decode(content, {**CONFIG, **changes})
    assert error == ""
    return pixels


@pytest.mark.parametrize("size", [(500, 375), (375, 500), (333, 500), (224, 224), (97, 31)])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_photos_are_resized_and_cropped_as_pillow_does_in_two_steps(size, mode):
    image = drawing(*size).convert(mode)
    assert largest_difference(decoded(encoded(image)), plain(image)) <= 1


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("size", [(301, 200), (200, 301), (640, 481)])
def test_each_exif_orientation_is_undone_before_the_crop(orientation, size):
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encoded(drawing(*size), exif=exif)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(content)))
    assert largest_difference(decoded(content), plain(upright)) <= 1


@pytest.mark.parametrize("value", [0, 9, 65535])
def test_an_exif_orientation_that_does_not_exist_changes_nothing(value):
    exif = Image.Exif()
    exif[0x0112] = value
    image = drawing(120, 90)
    assert largest_difference(decoded(encoded(image, exif=exif)), plain(image)) <= 1


@pytest.mark.parametrize(("level", "expected"), [(0, 0), (257 * 80, 80), (65535, 255)])
@pytest.mark.parametrize("mode", ["I;16", "I;16B"])
def test_16_bit_grey_is_scaled_and_not_clipped_to_white(level, expected, mode):
    image = Image.new(mode, (50, 40), level)
    pixels = decoded(encoded(image, "TIFF"))
    assert np.unique(pixels).tolist() == [expected]


@pytest.mark.parametrize(
    ("levels", "expected"),
    [
        (np.full((20, 20), 0.5, np.float32), 128),
        (np.full((20, 20), 51.0, np.float32), 51),
        (np.full((20, 20), 257 * 51, np.int32), 51),
        (np.full((20, 20), math.nan, np.float32), 0),
        (np.full((20, 20), math.inf, np.float32), 255),
    ],
)
def test_float_and_32_bit_grey_are_scaled_by_the_smallest_range_that_contains_them(
    levels, expected
):
    pixels = decoded(encoded(Image.fromarray(levels), "TIFF"))
    assert np.unique(pixels).tolist() == [expected]


def test_a_transparent_level_of_16_bit_grey_is_white():
    image = Image.new("I;16", (30, 30), 1000)
    assert np.unique(decoded(encoded(image, transparency=1000))).tolist() == [255]


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparent_parts_are_white(mode):
    image = Image.new("RGBA", (60, 60), (0, 0, 0, 128)).convert(mode)
    assert np.unique(decoded(encoded(image))).tolist() == [127]


def test_a_transparent_palette_colour_is_white_and_the_others_keep_theirs():
    image = Image.new("P", (64, 64), 0)
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.paste(1, (32, 0, 64, 64))
    pixels = decoded(encoded(image, transparency=0))
    assert [pixels[100, 20].tolist(), pixels[100, 200].tolist()] == [[255] * 3, [200, 100, 50]]


def test_a_transparent_colour_of_an_rgb_png_is_white():
    image = Image.new("RGB", (64, 64), (1, 2, 3))
    assert np.unique(decoded(encoded(image, transparency=(1, 2, 3)))).tolist() == [255]


@pytest.mark.parametrize(
    ("mode", "kind"), [("CMYK", "JPEG"), ("CMYK", "TIFF"), ("1", "PNG"), ("P", "GIF"), ("P", "PNG")]
)
def test_other_colour_modes_are_converted_to_rgb_as_by_pillow(mode, kind):
    content = encoded(drawing(320, 200).convert(mode), kind)
    expected = plain(Image.open(io.BytesIO(content)))
    assert largest_difference(decoded(content), expected) <= 1


def test_a_large_image_is_the_same_in_strips_as_in_one_piece():
    image = drawing(2600, 1900).convert("P")  # more than one strip of a million pixels
    assert largest_difference(decoded(encoded(image)), plain(image)) <= 1


def test_of_an_animation_the_first_frame_is_read():
    frames = [Image.new("RGB", (40, 40), colour) for colour in ("red", "blue")]
    for kind in ("GIF", "PNG", "WEBP", "TIFF"):
        options = {"lossless": True} if kind == "WEBP" else {}
        content = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)
        assert decoded(content)[112, 112].tolist() == [255, 0, 0]


@pytest.mark.parametrize("size", [(1, 1), (2, 1), (1, 10_000), (10_000, 1), (3, 2_000)])
def test_tiny_and_extreme_images_give_a_square(size):
    pixels = decoded(encoded(Image.new("RGB", size, (9, 8, 7))))
    assert (pixels.shape, pixels.dtype) == ((224, 224, 3), np.uint8)
    assert pixels[0, 0].tolist() == [9, 8, 7]


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (None, "empty"),
        (b"", "empty"),
        (float("nan"), "empty"),
        (b"#!/bin/sh", "unsupported_format"),
        (encoded(drawing(20, 20), "TGA"), "unsupported_format"),
        (encoded(drawing(20, 20), "ICO"), "unsupported_format"),
        (b"\xff\xd8\xff broken", "undecodable"),
        (encoded(drawing(200, 200))[:5000], "undecodable"),
        (encoded(drawing(200, 200)) + b"\0" * 60_000, "too_many_bytes"),
        (encoded(Image.new("1", (1001, 1000))), "too_many_pixels"),
    ],
)
def test_an_image_that_cannot_be_decoded_has_an_error_code(content, error):
    config = {**CONFIG, "max_bytes": 60_000, "max_pixels": 1_000_000}
    assert inference.decode(content, config) == (None, error)
    assert error in inference.ERRORS


def test_a_header_has_the_format_and_the_size_as_stored():
    exif = Image.Exif()
    exif[0x0112] = 6
    for kind in ("JPEG", "PNG", "WEBP", "TIFF"):
        content = encoded(drawing(30, 20), kind, exif=exif)
        assert inference.header(io.BytesIO(content)) == (kind, 30, 20, "")


def test_a_header_has_the_size_of_an_image_that_is_too_large():
    limits = {**inference.DEFAULTS, "max_pixels": 10}
    header = inference.header(io.BytesIO(encoded(drawing(30, 20))), limits)
    assert header == ("PNG", 30, 20, "too_many_pixels")


def test_the_header_of_another_file_has_only_an_error_code():
    assert inference.header(io.BytesIO(b"hello")) == ("", 0, 0, "unsupported_format")


def test_decoding_in_threads_gives_the_same_result_in_the_same_order():
    contents = [encoded(drawing(50, 40, seed)) for seed in range(9)] + [b"", None]
    alone, errors = inference.decode_all(contents, CONFIG)
    threaded, threaded_errors = inference.decode_all(contents, CONFIG, threads=4)
    assert (alone.shape, errors) == ((9, 224, 224, 3), [""] * 9 + ["empty", "empty"])
    assert (threaded_errors, largest_difference(alone, threaded)) == (errors, 0)
