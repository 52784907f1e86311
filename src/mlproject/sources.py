"""Where images lie: the files below a folder, or below a URI that pyarrow can open."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import fs

from mlproject.errors import UserError

# Suffixes of image files, in any case. Formats that no version reads stand here on purpose: such
# a file gets a row that says so.
SUFFIXES = (
    "avif,bmp,dib,gif,heic,heif,ico,jfif,jp2,jpe,jpeg,jpg,png,ppm,tif,tiff,webp"  # by alphabet
)

LISTED = pa.schema(
    [
        ("path", pa.string()),
        ("size_bytes", pa.int64()),
        ("modified_at", pa.timestamp("us", "UTC")),
        ("label", pa.string()),
    ]
)


@dataclass(frozen=True, slots=True)
class Listing:
    """The image files that lie in a source now."""

    source: str
    """The source as an absolute path or a URI."""
    files: pa.Table
    """One row a file: path, size_bytes, modified_at (microseconds, UTC), label; by path."""
    empty: int
    """Files of zero bytes: left for later, somebody may be writing them."""
    skipped: int
    """Files that are hidden or have another suffix."""


def listing(source: str, include: str = SUFFIXES) -> Listing:
    """All image files below a folder or URI, with the label that their folder's name gives.

    A file that lies directly in the source has no label. Names that begin with "." or "_" are
    hidden, as Spark has it. Source: Spark, HadoopFSUtils.shouldFilterOutPathName.

    Args:
        source: A local folder, or a URI of a file system that pyarrow knows.
        include: Suffixes, comma-separated, in any case; "*" takes every file.

    Raises:
        UserError: The source is no folder that can be listed.
    """
    root, filesystem, prefix = open_source(source)
    suffixes = tuple(f".{word.strip().lower()}" for word in include.split(","))
    rows: dict[str, list[Any]] = {name: [] for name in LISTED.names}
    empty = skipped = 0
    try:
        found = filesystem.get_file_info(fs.FileSelector(root, recursive=True))
    except OSError as error:
        raise UserError(
            f"Source {source!r} cannot be listed ({error}). Name a folder: -P source=FOLDER"
        ) from error
    for file in found:
        if file.type != fs.FileType.File:
            continue
        below = file.path[len(root) :].lstrip("/").split("/")
        hidden = any(name[:1] in (".", "_") for name in below)
        if hidden or (include != "*" and not below[-1].lower().endswith(suffixes)):
            skipped += 1
        elif file.size == 0:
            empty += 1
        else:
            rows["path"].append(prefix + file.path)
            rows["size_bytes"].append(file.size)
            rows["modified_at"].append(file.mtime_ns // 1000)
            rows["label"].append(below[-2] if len(below) > 1 else None)
    files = pa.table(rows, schema=LISTED).sort_by("path")
    return Listing(root if not prefix else source, files, empty, skipped)


def open_source(source: str) -> tuple[str, fs.FileSystem, str]:
    """A source's root, its file system, and what makes a canonical path of the latter's paths.

    Raises:
        UserError: The source is no folder, or no file system that pyarrow has.
    """
    if "://" not in source or source.startswith("file:"):
        root = Path(re.sub("^file:(//)?", "", source)).expanduser().resolve()
        if not root.is_dir():
            raise UserError(f"Source {source!r} is no folder. Name one: -P source=FOLDER")
        return str(root), fs.LocalFileSystem(), ""
    try:
        filesystem, root = fs.FileSystem.from_uri(source)
    except (pa.ArrowInvalid, OSError, NotImplementedError) as error:
        raise UserError(f"Source {source!r} cannot be opened ({error})") from error
    return root.rstrip("/"), filesystem, source.split("://", maxsplit=1)[0] + "://"
