"""Decodes image bytes to a square of RGB pixels within limits; invalid bytes give an error code.

The square equals "resize the short side, then crop the centre", computed in one step from the part
of the image that is needed. No global state is changed: the functions can run in many threads.
"""

import hashlib
import io
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from .errors import EMPTY, TOO_MANY_BYTES, TOO_MANY_PIXELS, UNDECODABLE, UNSUPPORTED_FORMAT
from .png_texts import without_long_texts
from .square import square

# The limits of a version whose config names no others.
DEFAULTS: dict[str, Any] = {
    # The formats of cameras and the web. JPEG includes MPO (several JPEGs in one file: the first is
    # read). Left out: AVIF (decodes in a thread for each core) and JPEG 2000 (19 bytes per pixel),
    # both absent from some builds of Pillow; TGA, which has no signature; ICO, PSD, XBM, FITS and
    # the like, which are not photos.
    "formats": ["JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF"],
    "max_bytes": 100_000_000,  # bytes; a 50 megapixel photo is 10 to 30 MB, as PNG up to 100 MB
    "max_pixels": 50_000_000,  # pixels; phones have up to 48 megapixels
    "max_decode_bytes": 256_000_000,  # bytes; with temporary copies below 300 MB per image
}

# Memory of decoding, bytes per pixel, where it depends on the format alone.
# Source: peak resident memory of Pillow 13 on 9 megapixel files: WebP 16.1 to 16.9, the others 4.
_BYTES_PER_PIXEL = {"WEBP": 17.0}
_PIXEL_BYTES = 4  # Source: Pillow stores every colour mode in four bytes a pixel
_COEFFICIENT_BYTES = 2  # Source: libjpeg keeps JCOEF (short) of the whole image for several scans

_JPEGS = ("JPEG", "MPO")
_ROWS = 64  # that are copied at a time
_END = b"\xff\xd9"  # Source: ITU-T T.81, B.1.1.3, end of image

# Source: TIFF 6.0, sections 8 and 15.
_IMAGE_WIDTH, _IMAGE_LENGTH, _BITS_PER_SAMPLE, _COMPRESSION = 256, 257, 258, 259
_ROWS_PER_STRIP, _TILE_WIDTH, _TILE_LENGTH = 278, 322, 323
_UNCOMPRESSED = 1


class Header(NamedTuple):
    """The header of an image file, read without decoding a pixel.

    Attributes:
        format: Pillow's name of the format ("JPEG", "MPO", "PNG" ...); "" when unknown.
        width: Pixels as stored, before EXIF orientation; 0 when unknown.
        height: Pixels as stored, before EXIF orientation; 0 when unknown.
        error: "" or a code of `ERRORS`. With "" the pixels can still be undecodable.
    """

    format: str
    width: int
    height: int
    error: str


def header(file: BinaryIO, limits: Mapping[str, Any] = DEFAULTS) -> Header:
    """Format and stored size of an image file of any size, and the error that its header shows.

    Args:
        file: Readable and seekable, at its start; only the bytes that Pillow needs are read.
        limits: `formats`, `max_pixels` and `max_decode_bytes` (see `DEFAULTS`).
    """
    image, error = _open(file, limits)
    if image is None:
        return Header("", 0, 0, error)
    with image:
        width, height = _stored_size(image)
        return Header(image.format or "", width, height, error)


def decode(content: bytes | None, config: Mapping[str, Any]) -> tuple[np.ndarray | None, str]:
    """A square of RGB pixels, or the error code; never raises.

    Args:
        content: The encoded image.
        config: The limits (see `DEFAULTS`), and `resize` and `crop` (pixels, crop <= resize): the
            short side after resizing, and the side of the centre square that is kept.

    Returns:
        uint8 array (crop, crop, 3) and "", or None and a code of `ERRORS`.
    """
    if not isinstance(content, bytes | bytearray | memoryview) or not len(content):
        return None, EMPTY
    if len(content) > config["max_bytes"]:
        return None, TOO_MANY_BYTES
    image, error = _open(io.BytesIO(content), config)
    if image is None:
        return None, error
    with image:
        if error:
            return None, error
        try:
            image.load()
            return np.asarray(square(image, config["resize"], config["crop"])), ""
        except MemoryError:  # no fault of the image
            raise
        except Exception:  # noqa: BLE001 - Pillow raises any exception for broken pixels
            whole = _with_end(bytes(content), config) if image.format in _JPEGS else b""
            return decode(whole, config) if whole else (None, UNDECODABLE)


def _with_end(content: bytes, config: Mapping[str, Any]) -> bytes:
    """A JPEG without an end marker, with one; empty = it has one, or its picture is not whole.

    Of a JPEG with one scan Pillow reads the last row without the marker, of one with several none.
    With the marker libjpeg invents what is missing. So the file is read with more data before the
    marker too: where data was missing, the picture is another one.
    """
    if content.endswith(_END):
        return b""
    data = content.removesuffix(_END[:1])
    digests = []
    for more in (b"", b"\x5a" * 64):
        try:
            with Image.open(io.BytesIO(data + more + _END), formats=config["formats"]) as image:
                digests.append(_digest(image))
        except MemoryError:  # no fault of the image
            raise
        except Exception:  # noqa: BLE001 - as in `decode`
            return b""
    return data + _END if digests[0] == digests[1] else b""


def _digest(image: Image.Image) -> bytes:
    """A digest of all pixels, of which few rows are copied at a time."""
    digest = hashlib.sha256()
    for top in range(0, image.height, _ROWS):
        digest.update(image.crop((0, top, image.width, top + _ROWS)).tobytes())
    return digest.digest()


def decode_all(
    contents: Sequence[bytes | None], config: Mapping[str, Any], *, threads: int = 1
) -> tuple[np.ndarray, list[str]]:
    """The squares of the images that can be decoded, and one error ("" = none) for each image.

    Args:
        contents: N encoded images.
        config: See `decode`.
        threads: Threads that decode. Pillow releases the interpreter lock while it decodes.

    Returns:
        uint8 array (M, crop, crop, 3), M <= N in the order of the contents, and N errors.
    """
    if threads > 1:
        with ThreadPoolExecutor(threads) as pool:
            decoded = list(pool.map(lambda content: decode(content, config), contents))
    else:
        decoded = [decode(content, config) for content in contents]
    squares = [pixels for pixels, _ in decoded if pixels is not None]
    side = config["crop"]
    images = np.stack(squares) if squares else np.empty((0, side, side, 3), np.uint8)
    return images, [error for _, error in decoded]


def _open(file: BinaryIO, limits: Mapping[str, Any]) -> tuple[Image.Image | None, str]:
    """The opened image (its header read) with "" or the code of a limit, or None with a code."""
    if isinstance(file, io.BytesIO):  # a larger file is not read whole
        file = io.BytesIO(without_long_texts(file.getvalue()))
    try:
        image = Image.open(file, formats=limits["formats"])
        return image, "" if _fits(image, limits) else TOO_MANY_PIXELS
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        return None, TOO_MANY_PIXELS
    except UnidentifiedImageError:
        return None, UNDECODABLE if _has_signature(file, limits["formats"]) else UNSUPPORTED_FORMAT
    except MemoryError:  # no fault of the image
        raise
    except Exception:  # noqa: BLE001 - a broken header raises OSError, ValueError, KeyError, ...
        return None, UNDECODABLE


def _has_signature(file: BinaryIO, formats: Sequence[str]) -> bool:
    """Whether the file has the signature of one of these formats."""
    file.seek(0)
    start = file.read(16)
    accepts = [Image.OPEN[name][1] for name in formats]
    return any(accept is not None and accept(start) for accept in accepts)


def _fits(image: Image.Image, limits: Mapping[str, Any]) -> bool:
    """Whether an opened image is within the limits of pixels and of memory for decoding."""
    pixels = image.width * image.height
    decoded = pixels * _decode_bytes(image)
    return bool(pixels <= limits["max_pixels"] and decoded <= limits["max_decode_bytes"])


def _stored_size(image: Image.Image) -> tuple[int, int]:
    """(width, height) as in the file; Pillow swaps those of a rotated TIFF."""
    tags = getattr(image, "tag_v2", None)
    if image.format != "TIFF" or tags is None:
        return image.size
    return tags.get(_IMAGE_WIDTH, image.width), tags.get(_IMAGE_LENGTH, image.height)


def _decode_bytes(image: Any) -> float:
    """Peak memory of decoding, bytes per pixel, computed from the header."""
    if image.format in _JPEGS and _several_scans(image):
        # The coefficients of all components are in memory until the last scan. The share of a
        # component in the pixels is its sampling divided by the largest. Source: ITU-T T.81, A.1.1.
        samplings = [horizontal * vertical for _, horizontal, vertical, _ in image.layer]
        return float(_PIXEL_BYTES + _COEFFICIENT_BYTES * sum(samplings) / max(samplings))
    if image.format == "TIFF":
        return _tiff_bytes(image)
    return _BYTES_PER_PIXEL.get(image.format, _PIXEL_BYTES)


def _tiff_bytes(image: Any) -> float:
    """`_decode_bytes` of a TIFF: the image, one strip or tile of it, and a rotated copy."""
    tags, (width, height) = image.tag_v2, _stored_size(image)
    rotated = _PIXEL_BYTES if tags.get(ExifTags.Base.Orientation, 1) != 1 else 0
    if tags.get(_COMPRESSION, _UNCOMPRESSED) == _UNCOMPRESSED:
        return _PIXEL_BYTES + rotated  # read in place, without libtiff
    if _TILE_WIDTH in tags:
        chunk = tags[_TILE_WIDTH] * tags[_TILE_LENGTH]
    else:
        chunk = width * min(height, tags.get(_ROWS_PER_STRIP, height))
    chunk_bytes = chunk * sum(tags.get(_BITS_PER_SAMPLE, (1,))) / 8
    return _PIXEL_BYTES + rotated + float(chunk_bytes) / (width * height)


def _several_scans(image: Any) -> bool:
    """Whether a JPEG has several scans: progressive, or one for each component."""
    if image.info.get("progressive"):
        return True
    # Pillow stops after the start-of-scan segment; a scan of all components has this length.
    # Source: ITU-T T.81, B.2.3.
    end, length = image.fp.tell(), 6 + 2 * int(image.layers)
    image.fp.seek(end - length)
    found = int.from_bytes(image.fp.read(2), "big")
    image.fp.seek(end)
    return found != length
