"""The image files of a source: those below a folder, or below a URI that pyarrow can open."""

import os
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from collections.abc import Set as AbstractSet
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any

import pathspec
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

NONE = "none"  # an option that names no files

# Files on their way to their real name.
UNFINISHED = (".part", ".partial", ".tmp", ".crdownload", ".download", "._copying_")

# What file servers, photo programs, archives and desktops leave behind, beside hidden names; in
# lower case. Sources: the documentation of Synology, QNAP, Windows, macOS, ext4 and Lightroom.
SYSTEM_FOLDERS = frozenset(
    {
        *("@eadir", "#recycle", "#snapshot", "@recycle", "@recently-snapshot", ".@__thumb"),
        *("$recycle.bin", "recycler", "system volume information", "lost+found"),
        *("__macosx", ".trashes", ".thumbnails", ".spotlight-v100", ".fseventsd", ".appledouble"),
        *("network trash folder", "temporary items", ".picasaoriginals"),
    }
)
SYSTEM_FILES = frozenset(
    {*("thumbs.db", "ehthumbs.db", "desktop.ini", "picasa.ini", ".picasa.ini", ".ds_store")}
)
PREVIEWS = ".lrdata"  # the end of the name of a folder in which Lightroom keeps previews
# Folders of MLflow and Spark; a Delta table is known by the first.
DELTA_LOG = "_delta_log"
OUTPUT_FOLDERS = frozenset({"mlruns", "mlartifacts", "spark-warehouse", "metastore_db"})

_SUFFIX = re.compile(r"\.?[\w+-]+(\.[\w+-]+)*")  # of a file, as a person writes it
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
    file, not of `include`, of `exclude`), `system` (folders and files that systems leave behind),
    `output` (a Delta table, and files of MLflow), `link` (leaves the source, loops or dangles, or
    leads to a folder from a folder that a link led to), `name` (no valid UTF-8, or a folder of a
    bucket whose name the file system cannot open: "", "." or ".."), `unreadable` (a folder), `gone`
    (while it was listed)."""
    root: str
    """What each path begins with, before a "/": the source without settings."""

    def left_counts(self) -> dict[str, int]:
        """How many files were left, by reason."""
        return dict(Counter(self.left["reason"].to_pylist()))


def chosen(name: str, option: str) -> Callable[[str], bool]:
    """Whether a path below the source, in lower case, is of the option `include` or `exclude`.

    Its words are divided by commas, or by blanks where they name no folder: suffixes, or patterns
    as in a .gitignore file. The word `none` alone is of no file.

    Raises:
        UserError: A word is neither.
    """
    parts = (part.strip().lower() for part in option.split(","))
    words = [word for part in parts for word in ([part] if "/" in part else part.split())]
    suffixes = [word for word in words if _SUFFIX.fullmatch(word)]
    endings = tuple(word if word[0] == "." else f".{word}" for word in suffixes)
    patterns = [word for word in words if word not in suffixes]
    if option == NONE:
        return lambda path: False
    if negated := [word for word in patterns if word.startswith("!")]:
        raise UserError(f"{name}={option!r}: {negated[0]!r} is no pattern. Write exclude=PATTERN")
    if not patterns:
        return lambda path: path.endswith(endings)
    try:
        lines = [re.sub("^#", r"\\#", word) for word in patterns]
        spec = pathspec.PathSpec.from_lines("gitignore", lines)
    except ValueError as error:
        raise UserError(f"{name}={option!r} is no pattern such as *.jpg ({error})") from error
    return lambda path: path.endswith(endings) or spec.match_file(path)


def listing(
    source: str,
    include: str = SUFFIXES,
    *,
    exclude: str = NONE,
    settle: float = 0.0,
    outputs: AbstractSet[str] = frozenset(),
) -> Listing:
    """All image files below a folder or URI, with the label that their folder's name gives.

    A file that lies directly in the source has no label. Names that begin with "." or "_" are
    hidden, but for `_x=1`, as Spark has it. Source: Spark, HadoopFSUtils.shouldFilterOutPathName.

    The options are those of `ingest`; `outputs` are files and folders that are never listed, by
    their real paths. What systems leave behind and Delta tables are not listed either; of a folder
    of theirs the folder alone is counted. A modified time that is further than `settle` seconds in
    the future counts as long ago.

    Raises:
        UserError: The source is no folder that can be listed.
    """
    where = object_storage.with_server(source)
    root, prefix = object_storage.open_source(where)
    is_included, is_excluded = chosen("include", include), chosen("exclude", exclude)
    left: list[tuple[str, str]] = []
    rows: dict[str, list[Any]] = {name: [] for name in LISTED.names}
    places: dict[str, tuple[bool, str | None]] = {}  # is it hidden, and the label of its files
    inside = frozenset(one.removeprefix(prefix) for one in outputs)
    files_of = _remote_files if prefix else _local_files
    try:
        for path, size, modified_at in files_of(where, root, left, inside):
            folder, _, name = path.rpartition("/")
            if folder not in places:
                parts = folder[len(root) :].split("/")
                places[folder] = any(map(_is_hidden, parts)), parts[-1] or None
            is_hidden, label = places[folder]
            below = path[len(root) + 1 :].lower()
            if name.lower() in SYSTEM_FILES:
                left.append((path, "system"))
            elif is_hidden or _is_hidden(name):
                left.append((path, "skipped"))
            elif below.endswith(UNFINISHED):
                left.append((path, "settling"))
            elif not is_included(below) or is_excluded(below):
                left.append((path, "skipped"))
            elif path in inside:
                left.append((path, "output"))
            elif reason := _not_yet(path, size, modified_at, settle):
                left.append((path, reason))
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


def _not_yet(path: str, size: int, modified_at: int, settle: float) -> str:
    """Why a file of the right name is left; empty = it is not."""
    if not path.isascii() and NOT_UTF8.search(path):
        return "name"
    if size == 0:
        return "empty"
    # A listing takes its time: a file written meanwhile is newer than its beginning.
    return "settling" if settle and abs(time.time() - modified_at / 1e6) < settle else ""


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or (name.startswith("_") and "=" not in name)


def _left_whole(name: str, place: str, outputs: AbstractSet[str]) -> str:
    """Why a folder is left with all that is in it: `system` or `output`; empty = it is not."""
    low = name.lower()
    if low in SYSTEM_FOLDERS or low.endswith(PREVIEWS):
        return "system"
    return "output" if low in OUTPUT_FOLDERS or place in outputs else ""


def _local_files(
    source: str, root: str, left: list[tuple[str, str]], outputs: AbstractSet[str]
) -> Iterator[File]:
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
        if place in outputs or any(entry.name == DELTA_LOG for entry in entries):
            left.append((folder, "output"))
            continue
        for entry in entries:
            is_link = entry.is_symlink()
            try:
                if is_link and not _leads_on(entry, root, folder, place):
                    left.append((entry.path, "link"))
                elif entry.is_dir():
                    real = os.path.realpath(entry.path) if is_link else f"{place}/{entry.name}"
                    if reason := _left_whole(entry.name, real, outputs):
                        left.append((entry.path, reason))
                    else:
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


def _remote_files(
    source: str, root: str, left: list[tuple[str, str]], outputs: AbstractSet[str]
) -> Iterator[File]:
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
                # In the order of S3 the log comes before the data files, so on an earlier page.
                if any(below.rpartition("/")[2] == DELTA_LOG for below in found.folders):
                    left.append((folder, "output"))
                    continue
                if found.token:
                    to_list.append((folder, found.token))
                for below in found.folders:
                    name = below.rpartition("/")[2]
                    if name in ("", ".", ".."):
                        left.append((below, "name"))
                    elif reason := _left_whole(name, below, outputs):
                        left.append((below, reason))
                    else:
                        to_list.append((below, ""))
                yield from found.files
