"""The image files of a source: those below a folder, or below a URI that pyarrow can open."""

import os
import re
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from mlproject.errors import UserError
from mlproject.lake.schemas import SCHEMAS
from mlproject.storage import object_storage
from mlproject.storage.lookups import LISTED_AT_ONCE, File, Page

# Suffixes of image files, in any case. Formats that no version reads are listed on purpose:
# such a file gets a row with an error.
SUFFIXES = (
    "avif,bmp,dib,gif,heic,heif,ico,jfif,jp2,jpe,jpeg,jpg,png,ppm,tif,tiff,webp"  # by alphabet
)

# Files on their way to their real name.
UNFINISHED = (".part", ".partial", ".tmp", ".crdownload", ".download", "._copying_")

NOT_UTF8 = re.compile("[\ud800-\udfff]")  # bytes of a path that are not UTF-8 are surrogates

_COLUMNS = ("path", "size_bytes", "modified_at", "label")
LISTED = pa.schema([SCHEMAS["images"].field(name) for name in _COLUMNS])
LEFT = pa.schema([("path", pa.string()), ("reason", pa.string())])


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

    The options are those of `ingest`. A modified time that is further than `settle` seconds in the
    future counts as long ago.

    Raises:
        UserError: The source is no folder that can be listed.
    """
    where = object_storage.with_server(source)
    root, prefix = object_storage.open_source(where)
    suffixes = tuple(f".{word.strip().lower()}" for word in include.split(","))
    left: list[tuple[str, str]] = []
    rows: dict[str, list[Any]] = {name: [] for name in LISTED.names}
    places: dict[str, tuple[bool, str | None]] = {}  # is it hidden, and the label of its files
    found = _remote_files(where, root, left) if prefix else _local_files(root, left)
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
            elif not path.isascii() and NOT_UTF8.search(path):
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
        raise UserError(
            f"Source {source!r} cannot be listed. {object_storage.advice(source, error)}"
        ) from error
    files = pa.table(rows, schema=LISTED).sort_by("path")
    shown = [prefix + path.encode("utf-8", "backslashreplace").decode() for path, _ in left]
    reasons = [reason for _, reason in left]
    not_taken = pa.table({"path": shown, "reason": reasons}, schema=LEFT)
    return Listing(where if prefix else root, files, not_taken, prefix + root)


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or (name.startswith("_") and "=" not in name)


def _local_files(root: str, left: list[tuple[str, str]]) -> Iterator[File]:
    """The files below a local folder; links are followed as long as they stay below it.

    Links to folders are followed from real folders only: ten folders that link to each other would
    be listed in all their orders. pyarrow's own listing ends at the first name that is not UTF-8,
    and goes round loops of links.
    """
    folders = [(root, root)]  # as each is reached, and where it really lies
    while folders:
        folder, place = folders.pop()
        try:
            entries = list(os.scandir(folder))
        except OSError:
            if folder == root:
                raise
            left.append((folder, "unreadable"))
            continue
        for entry in entries:
            is_link = entry.is_symlink()
            try:
                if is_link and not _leads_on(entry, root, folder, place):
                    left.append((entry.path, "link"))
                elif entry.is_dir():
                    real = os.path.realpath(entry.path) if is_link else f"{place}/{entry.name}"
                    folders.append((entry.path, real))
                elif entry.is_file():
                    facts = entry.stat()
                    yield entry.path, facts.st_size, facts.st_mtime_ns // 1000
                else:
                    left.append((entry.path, "skipped"))
            except OSError:
                left.append((entry.path, "link" if is_link else "gone"))


def _leads_on(link: "os.DirEntry[str]", root: str, folder: str, place: str) -> bool:
    """Whether a link leads to a file or folder below the root that is listed there too."""
    real = os.path.realpath(link.path, strict=True)
    loops = f"{place}/".startswith(f"{real}/")
    again = folder != place and link.is_dir()
    return real.startswith(f"{root}/") and not loops and not again


def _remote_files(source: str, root: str, left: list[tuple[str, str]]) -> Iterator[File]:
    """The files below a folder on object storage, a few pages at a time.

    What is held are as many pages, and the folders that were found and not yet listed.
    """
    page = object_storage.pages(source)
    to_list, listed = [(root, "")], dict[Future[Page], str]()
    with ThreadPoolExecutor(LISTED_AT_ONCE) as pool:
        while to_list or listed:
            while to_list and len(listed) < LISTED_AT_ONCE:
                folder, token = to_list.pop()
                listed[pool.submit(page, folder, token)] = folder
            for done in wait(listed, return_when=FIRST_COMPLETED).done:
                folder = listed.pop(done)
                try:
                    found = done.result()
                except OSError as error:
                    if folder == root or not object_storage.is_refusal(error):
                        raise
                    left.append((folder, "unreadable"))
                    continue
                if found.token:
                    to_list.append((folder, found.token))
                for below in found.folders:
                    if below.rpartition("/")[2] in ("", ".", ".."):
                        left.append((below, "name"))
                    else:
                        to_list.append((below, ""))
                yield from found.files
