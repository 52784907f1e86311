"""Where images lie: the files below a folder, or below a URI that pyarrow can open."""

import time
from collections import Counter
from dataclasses import dataclass
from functools import cache
from typing import Any

import pyarrow as pa
from pyarrow import fs

from mlproject import s3, walking
from mlproject.errors import UserError
from mlproject.files import local_path

# Suffixes of image files, in any case. Formats that no version reads stand here on purpose: such
# a file gets a row that says so.
SUFFIXES = (
    "avif,bmp,dib,gif,heic,heif,ico,jfif,jp2,jpe,jpeg,jpg,png,ppm,tif,tiff,webp"  # by alphabet
)

# Files on their way to their real name.
UNFINISHED = (".part", ".partial", ".tmp", ".crdownload", ".download", "._copying_")

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
    """The source as `open_source` takes it anywhere: an absolute path, or a URI with what it takes
    to find its server."""
    files: pa.Table
    """One row a file: path, size_bytes, modified_at (microseconds, UTC), label; by path."""
    left: pa.Table
    """What was left: path (bytes that are not UTF-8 as \\udcXX) and reason: `empty` (no bytes
    yet), `settling` (just modified, or named .part and the like), `skipped` (hidden, no regular
    file, another suffix), `link` (leaves the source, loops or dangles, or leads to a folder from a
    folder that a link led to), `name` (no valid UTF-8, or
    a folder of a bucket whose name the file system cannot open: "", "." or ".."), `unreadable` (a
    folder), `gone` (while it was listed)."""
    root: str
    """What each path begins with, before a "/": the source without settings."""

    def left_counts(self) -> dict[str, int]:
        """How many files were left, by reason."""
        return dict(Counter(self.left["reason"].to_pylist()))


def listing(source: str, include: str = SUFFIXES, *, settle: float = 0.0) -> Listing:
    """All image files below a folder or URI, with the label that their folder's name gives.

    A file that lies directly in the source has no label. Names that begin with "." or "_" are
    hidden, but for `_x=1`, as Spark has it. Source: Spark, HadoopFSUtils.shouldFilterOutPathName.

    Args:
        source: A local folder, or a URI of a file system that pyarrow knows.
        include: Suffixes, comma-separated, in any case; "*" takes every file.
        settle: Seconds since a file was modified, before it is taken. A time further than that in
            the future counts as long ago.

    Raises:
        UserError: The source is no folder that can be listed.
    """
    where = s3.folder(source).uri() if _in_s3(source) else source
    root, filesystem, prefix = open_source(where)
    suffixes = tuple(f".{word.strip().lower()}" for word in include.split(","))
    left: list[tuple[str, str]] = []
    rows: dict[str, list[Any]] = {name: [] for name in LISTED.names}
    places: dict[str, tuple[bool, str | None]] = {}  # is it hidden, and the label of its files
    found = walking.remote(root, filesystem, left) if prefix else walking.local(root, left)
    try:
        for path, size, modified_at in found:
            folder, _, name = path.rpartition("/")
            if folder not in places:
                parts = folder[len(root) :].split("/")
                places[folder] = any(map(_is_hidden, parts)), parts[-1] or None
            is_hidden, label = places[folder]
            low = name.lower()
            if is_hidden or _is_hidden(name):
                left.append((path, "skipped"))
            elif low.endswith(UNFINISHED):
                left.append((path, "settling"))
            elif include != "*" and not low.endswith(suffixes):
                left.append((path, "skipped"))
            elif not (path.isascii() or _is_utf8(path)):
                left.append((path, "name"))
            elif size == 0:
                left.append((path, "empty"))
            # A listing takes its time: a file written meanwhile is newer than its beginning.
            elif settle and abs(time.time() - modified_at / 1e6) < settle:
                left.append((path, "settling"))
            else:
                rows["path"].append(prefix + path)
                rows["size_bytes"].append(size)
                rows["modified_at"].append(modified_at)
                rows["label"].append(label)
    except OSError as error:
        raise UserError(f"Source {source!r} cannot be listed. {_advice(source, error)}") from error
    files = pa.table(rows, schema=LISTED).sort_by("path")
    return Listing(where if prefix else root, files, _left(left, prefix), prefix + root)


def open_source(source: str) -> tuple[str, fs.FileSystem, str]:
    """A source's root, its file system, and what makes a canonical path of the latter's paths.

    Raises:
        UserError: The source is no folder, or no file system that pyarrow has.
    """
    if "://" not in source or source.startswith("file:"):
        root = local_path(source)
        if not root.is_dir():
            raise UserError(f"Source {source!r} is no folder. Name one: -P source=FOLDER")
        return str(root), fs.LocalFileSystem(), ""
    try:
        if _in_s3(source):
            folder = s3.folder(source)
            return folder.root, s3.filesystem(folder), "s3://"
        filesystem, root = fs.FileSystem.from_uri(source)
    except (pa.ArrowInvalid, OSError, NotImplementedError) as error:
        raise UserError(f"Source {source!r} cannot be opened ({error})") from error
    return root.rstrip("/"), filesystem, source.split("://", maxsplit=1)[0] + "://"


def open_path(path: str) -> tuple[fs.FileSystem, str]:
    """The file system of a path as `listing` gave it, and the file system's own word for it.

    A server that is not its scheme's own must be named in the environment.
    """
    if "://" not in path:
        return fs.LocalFileSystem(), path
    scheme, inner = path.split("://", maxsplit=1)
    place, _, below = inner.partition("/")
    # Hadoop's name for S3 is none of pyarrow's.
    root, filesystem = _remote(f"{'s3' if scheme == 's3a' else scheme}://{place}")
    return filesystem, f"{root}/{below}"


@cache
def _remote(place: str) -> tuple[str, fs.FileSystem]:
    return open_source(place)[:2]


def missing_files(source: str, paths: list[str]) -> list[bool]:
    """Whether each path, as `listing` gave it, is there no more.

    Raises:
        UserError: The file system does not say.
    """
    require(source)
    _, filesystem, prefix = open_source(source)
    inner = [path.removeprefix(prefix) for path in paths]
    try:
        return [_is_missing(info) for info in filesystem.get_file_info(inner)]
    except OSError:
        return [_is_there_none(source, filesystem, path) for path in inner]


def _is_there_none(source: str, filesystem: fs.FileSystem, path: str) -> bool:
    """Whether a path is there no more; where it may not be looked at, it is there."""
    try:
        return _is_missing(filesystem.get_file_info(path))
    except OSError as error:
        if not _in_s3(source) or s3.is_refusal(error):
            return False
        raise UserError(f"Source {source!r} does not answer. {_advice(source, error)}") from error


def _is_missing(info: fs.FileInfo) -> bool:
    return bool(info.type == fs.FileType.NotFound)


def require(source: str) -> None:
    """Raises UserError when a source is there no more, or does not answer.

    Without its bucket, each file of a source in S3 looks removed. Source: S3, HeadObject, which
    tells a missing bucket from a missing key in no way.
    """
    root, filesystem, _ = open_source(source)
    if not _in_s3(source):
        return
    try:
        bucket = filesystem.get_file_info(root.split("/")[0])
    except OSError as error:
        if s3.is_refusal(error):  # it is there, for those who may list folders of it only
            return
        raise UserError(f"Source {source!r} does not answer. {_advice(source, error)}") from error
    if _is_missing(bucket):
        raise UserError(f"Source {source!r} is gone. {s3.FAULTS['NO_SUCH_BUCKET']}")


def _in_s3(source: str) -> bool:
    return source.startswith("s3://")


def _advice(source: str, error: OSError) -> str:
    return s3.advice(error) if _in_s3(source) else f"Name a folder: -P source=FOLDER ({error})"


def _left(left: list[tuple[str, str]], prefix: str) -> pa.Table:
    shown = [prefix + path.encode("utf-8", "backslashreplace").decode() for path, _ in left]
    reasons = pa.array([reason for _, reason in left], pa.string())
    return pa.table({"path": pa.array(shown, pa.string()), "reason": reasons})


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or (name.startswith("_") and "=" not in name)


def _is_utf8(path: str) -> bool:
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True
