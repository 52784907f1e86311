"""Local files: their paths, atomic writes, and the output of native code."""

import contextlib
import getpass
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

from mlproject.errors import UserError


def local_path(place: str) -> Path:
    """The absolute path of a path or of a URI with the scheme `file`."""
    if place.startswith("file:"):
        place = unquote(re.sub("^file:(//(localhost(?=/))?)?", "", place))
    return Path(place).expanduser().resolve()


def cache_folder() -> Path:
    """The user's cache folder of mlproject (XDG_CACHE_HOME, else ~/.cache), created when absent.

    Without a home folder that can be written, as in a container, one among the temporary files.
    Source: XDG Base Directory Specification.

    Raises:
        UserError: The temporary one is another user's.
    """
    folder = _home_cache()
    if folder:
        with contextlib.suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
        if os.access(folder, os.W_OK):
            return folder
    folder = Path(tempfile.gettempdir()) / f"mlproject-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise UserError(f"{str(folder)!r} is another user's. Name a folder: export XDG_CACHE_HOME=")
    return folder


def cache_folders() -> list[Path]:
    """Where cached files may lie: in `cache_folder`, and in the home's that can only be read.

    An image for containers may have the latter.
    """
    return list(dict.fromkeys(filter(None, (cache_folder(), _home_cache()))))


def _home_cache() -> Path | None:
    try:
        home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    except RuntimeError:  # no home folder
        return None
    return Path(home) / "mlproject"


def user_name() -> str:
    """The name of this process's user; the number where the system has none, as `id` prints it."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())


def write_whole(path: Path, content: str | bytes, *, executable: bool = False) -> None:
    """Writes a file atomically: neither a reader nor a kill leaves half of it. Text is UTF-8."""
    data = content.encode() if isinstance(content, str) else content
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists() and not path.is_file():  # a pipe, or a device
        path.write_bytes(data)
        return
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        part.write_bytes(data)
        if executable:
            part.chmod(0o755)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


@contextlib.contextmanager
def output_to(log: Path) -> Iterator[None]:
    """Redirects stdout and stderr to a file, also of native code and of new processes.

    Those processes write to the file until they end.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    before = [os.dup(1), os.dup(2)]
    with log.open("wb") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for number, kept in enumerate(before, start=1):
            os.dup2(kept, number)
            os.close(kept)
