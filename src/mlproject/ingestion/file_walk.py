"""Walks through folders, local and remote ones, and gives their files."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from pyarrow import fs

from mlproject.integrations import s3

# Folders of a remote file system that are asked for at once: each costs a request, at tens of
# milliseconds. What is held of the file system's own records is one listing of as many folders.
LISTED_AT_ONCE = 16

# Path (bytes that are not UTF-8 are surrogates), size, and microseconds since 1970.
File = tuple[str, int, int]


def local(root: str, left: list[tuple[str, str]]) -> Iterator[File]:
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


def remote(root: str, filesystem: fs.FileSystem, left: list[tuple[str, str]]) -> Iterator[File]:
    """The files below a folder of a remote file system.

    Folder by folder: pyarrow gives a listing only whole, and of a whole bucket that is gigabytes.
    """

    def entries(folder: str) -> list[fs.FileInfo] | None:
        below = fs.FileSelector(folder, allow_not_found=folder != root)
        try:
            return list(filesystem.get_file_info(below))
        except OSError as error:
            if folder == root or not s3.is_refusal(error):
                raise
            return None

    folders = [root]
    with ThreadPoolExecutor(LISTED_AT_ONCE) as pool:
        while folders:
            some, folders = folders[-LISTED_AT_ONCE:], folders[:-LISTED_AT_ONCE]
            for folder, found in zip(some, pool.map(entries, some), strict=True):
                if found is None:
                    left.append((folder, "unreadable"))
                for file in found or ():
                    if file.type == fs.FileType.File:
                        yield file.path, file.size, file.mtime_ns // 1000
                    elif file.path == folder or file.path.split("/")[-1] in ("", ".", ".."):
                        left.append((file.path, "name"))
                    else:
                        folders.append(file.path)
