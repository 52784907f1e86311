"""Where a lake lies: one folder or URI, with its tables as `LAKE/images` and so on."""

import logging
import re
from pathlib import Path

from mlproject.errors import UserError
from mlproject.storage.local_files import local_path
from mlproject.storage.object_storage import is_atomic, is_cloud, open_source

_log = logging.getLogger(__name__)


def locate(lake: str) -> str:
    """The lake as an absolute path, or as a URI; `s3a` becomes `s3`, and `abfs` becomes `abfss`.

    Raises:
        UserError: The URI has settings behind a "?", names no bucket, or its clients would take it
            for different places.
    """
    if not is_local(lake):
        if "?" in lake:
            raise UserError(
                f"Lake {lake!r} has settings after its name. Set them in the environment, such as "
                "AWS_ENDPOINT_URL"
            )
        # deltalake reads a URI's % and #, and parts as `..`; the clients of other files do not.
        parts = lake.rstrip("/").partition("://")[2].split("/") if "://" in lake else []
        if re.search(r"#|\\|%[0-9A-Fa-f]{2}", lake) or {"", ".", ".."} & set(parts):
            raise UserError(f"Lake {lake!r} has #, %, \\, .. or // in its name. Name another")
        if is_cloud(lake):
            return "".join(reversed(open_source(lake)))
        return re.sub("^s3a://", "s3://", lake.rstrip("/"))
    return str(local_path(lake))


def locate_to_write(lake: str) -> str:
    """As `locate`, and a local lake's folder is made when it is absent.

    Raises:
        UserError: No folder can be made or written there.
    """
    located = locate(lake)
    if is_local(located):
        # deltalake takes a path for a URL in places. Seen with deltalake 1.6.6.
        if re.search(r"%[0-9A-Fa-f]{2}|[\\\n\t]", located):
            raise UserError(
                f"Lake {lake!r} has a % or \\ in its path. Name another: -P lake=FOLDER"
            )
        try:
            Path(located).mkdir(parents=True, exist_ok=True)
            probe = Path(located) / ".writable"
            probe.touch()
            probe.unlink(missing_ok=True)
        except OSError as error:
            raise UserError(
                f"Lake {lake!r} cannot be written ({error.strerror}). "
                "Name a folder that you may write: -P lake=FOLDER"
            ) from error
    return located


def is_local(lake: str) -> bool:
    """Whether a lake lies in a folder of this machine: a path, or a URI of the scheme `file`."""
    scheme = re.match(r"([a-zA-Z][\w+.-]+):", lake)  # one letter is a drive
    return scheme is None or scheme[1] == "file"


def warn_if_commits_get_lost(path: str) -> None:
    """Logs a warning where two writers of one commit would both succeed, of which one is lost.

    Raises:
        OSError: The file system does not answer, or refuses.
    """
    if not is_atomic(path):
        _log.warning(
            "%s: the server overwrites a file though it is asked not to. "
            "Several writers at once would lose commits there: run one command at a time",
            path,
        )
