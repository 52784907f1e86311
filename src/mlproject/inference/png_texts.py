"""PNG files without the texts and colour profiles that are too long for Pillow.

Pillow refuses a PNG with a text of more than 1 MB, or with more than 64 MB of texts, as screenshots
of design tools and generated images have them. Its limits are settings of the whole process.
"""

import zlib

SIGNATURE = b"\x89PNG\r\n\x1a\n"
# Source: Pillow, PngImagePlugin.MAX_TEXT_CHUNK, of which MAX_TEXT_MEMORY is 64 times.
TEXT_BYTES = 1024**2
ALL_TEXT_BYTES = 64 * TEXT_BYTES
_FRAME = 12  # bytes of a chunk beside its data: length, kind and checksum


def without_long_texts(content: bytes) -> bytes:
    """The file without the texts and colour profiles that Pillow would refuse it for.

    No pixel and no other fact is left out. What is no PNG, or has no such text, is given back as it
    is. Source: PNG (Third Edition), sections 5.3 and 11.3.
    """
    if not content.startswith(SIGNATURE):
        return content
    kept, begin, texts = list[bytes](), 0, 0
    view, place = memoryview(content), len(SIGNATURE)
    while place + _FRAME <= len(content):
        end = place + _FRAME + int.from_bytes(view[place : place + 4], "big")
        kind = bytes(view[place + 4 : place + 8])
        if kind in (b"tEXt", b"zTXt", b"iTXt", b"iCCP"):
            size = _text_bytes(kind, bytes(view[place + 8 : end - 4]))
            texts += size
            if size > TEXT_BYTES or texts > ALL_TEXT_BYTES:
                texts -= size
                kept.append(content[begin:place])
                begin = end
        place = end
    return b"".join([*kept, content[begin:]]) if kept else content


def _text_bytes(kind: bytes, data: bytes) -> int:
    """The bytes of a text or profile when it is read; of a long one just more than are allowed."""
    if kind == b"tEXt":
        return len(data)
    rest = data.partition(b"\0")[2]  # after the keyword
    if kind == b"iTXt":
        is_compressed, rest = rest[:1] == b"\1", rest[2:]
        text = rest.split(b"\0", 2)[-1]  # after the language and the translated keyword
        return _inflated_bytes(text) if is_compressed else len(text)
    return _inflated_bytes(rest[1:])  # after the method of compression


def _inflated_bytes(data: bytes) -> int:
    try:
        return len(zlib.decompressobj().decompress(data, TEXT_BYTES + 1))
    except zlib.error:
        return 0  # Pillow leaves such a text out, or calls the file broken
