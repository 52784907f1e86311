"""The bytes of references: from the files that `images` refers to. Called in tasks and threads."""

import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

from mlproject.errors import UserError
from mlproject.images.image_files import HELD_BYTES, hashed
from mlproject.inference.errors import CHANGED, GONE, TOO_MANY_BYTES
from mlproject.storage.object_storage import blocks, require

RETRY_WAITS_S = (1, 4)  # seconds before a file that cannot be read is read again
RETRIED_FILES = 3  # unreadable files of a server in a task, after which no file is read again
SERVER_TIMEOUT_S = 60  # time of a task with a server that fails; after it no file is read
MISSING = (FileNotFoundError, NotADirectoryError)
UNREADABLE = (OSError, UserError)  # raised when a server fails or refuses a file


def fetcher() -> Callable[[dict[str, Any]], dict[str, Any] | None]:
    """A function that reads one image, from a row with image_id, size_bytes and paths.

    It gives image_id, content and error: the bytes from the first path that has them, or an error;
    None where its bytes cannot be read now. Several threads may call it. It asks for each bucket or
    folder once, and remembers which servers fail.
    """
    return partial(_fetch, exists=cache(_exists), failed_s=defaultdict(list))


def read_once(image_id: str, paths: Sequence[str]) -> tuple[bytes | None, str, str]:
    """The bytes of an image from the first path that has them, "" and "".

    Else None, the error and "" when no path has them any more; or None, "" and the reason when that
    is not known now.
    """
    return _from_files(image_id, paths, lambda path: hashed(blocks(path)), _exists)


def _fetch(
    request: dict[str, Any],
    *,
    exists: Callable[[str], bool],
    failed_s: defaultdict[str, list[float]],
) -> dict[str, Any] | None:
    row = {"image_id": request["image_id"], "content": None, "error": TOO_MANY_BYTES}
    if request["size_bytes"] > HELD_BYTES:
        return row

    def read(path: str) -> tuple[str, int, bytes | None]:
        failed, began = failed_s[_folder(path) if "://" in path else ""], time.monotonic()
        if sum(failed) > SERVER_TIMEOUT_S:
            raise TimeoutError
        try:
            return _read_with_retries(path, RETRY_WAITS_S if len(failed) < RETRIED_FILES else ())
        except MISSING:
            raise
        except UNREADABLE:
            failed.append(time.monotonic() - began)
            raise

    content, error, fault = _from_files(request["image_id"], request["paths"], read, exists)
    return None if fault else {**row, "content": content, "error": error or None}


def _from_files(
    image_id: str,
    paths: Sequence[str],
    read: Callable[[str], tuple[str, int, bytes | None]],
    exists: Callable[[str], bool],
) -> tuple[bytes | None, str, str]:
    error, fault, empty = "", "", ""
    for path in paths:
        try:
            found, _, content = read(path)
        except MISSING:
            if exists(_folder(path)):
                error = error or GONE
            elif "://" in path:
                fault = fault or f"{_folder(path)} does not answer"
            else:  # a moved file is found at its new path
                empty = empty or f"the folder of {path} is empty, like a disk that is not mounted"
            continue
        except UNREADABLE as failure:
            fault = fault or f"{path} ({failure})"
            continue
        if found == image_id:
            return content, "" if content is not None else TOO_MANY_BYTES, ""
        error = CHANGED
    fault = fault or ("" if error else empty)
    return None, "" if fault else error or GONE, fault


def _folder(path: str) -> str:
    """The bucket of a path, or its folder."""
    return "/".join(path.split("/")[:3]) if "://" in path else str(Path(path).parent)


def _exists(folder: str) -> bool:
    """Whether a bucket answers or a folder has entries: else each of its files looks removed."""
    try:
        if "://" in folder:
            require(folder)
            return True
        # The parent of a removed folder is checked instead.
        parents = (Path(folder), *Path(folder).parents)
        return any(next(parent for parent in parents if parent.is_dir()).iterdir())
    except UNREADABLE:
        return False


def _read_with_retries(path: str, waits: Sequence[float]) -> tuple[str, int, bytes | None]:
    """As `hashed`; a file that cannot be read is read again after each wait, in seconds."""
    for wait in waits:
        try:
            return hashed(blocks(path))
        except MISSING:
            raise
        except UNREADABLE:
            time.sleep(wait)
    return hashed(blocks(path))
