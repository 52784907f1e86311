"""File systems of folders and URIs: a local folder, S3, and what else pyarrow can open."""

from functools import cache

import pyarrow as pa
from pyarrow import fs

from mlproject.errors import UserError
from mlproject.integrations import s3
from mlproject.integrations.local_files import local_path


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
        if is_s3(source):
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
        if not is_s3(source) or s3.is_refusal(error):
            return False
        raise UserError(f"Source {source!r} does not answer. {advice(source, error)}") from error


def _is_missing(info: fs.FileInfo) -> bool:
    return bool(info.type == fs.FileType.NotFound)


def require(source: str) -> None:
    """Raises UserError when a source is there no more, or does not answer.

    Without its bucket, each file of a source in S3 looks removed. Source: S3, HeadObject, which
    tells a missing bucket from a missing key in no way.
    """
    root, filesystem, _ = open_source(source)
    if not is_s3(source):
        return
    try:
        bucket = filesystem.get_file_info(root.split("/")[0])
    except OSError as error:
        if s3.is_refusal(error):  # it is there, for those who may list folders of it only
            return
        raise UserError(f"Source {source!r} does not answer. {advice(source, error)}") from error
    if _is_missing(bucket):
        raise UserError(f"Source {source!r} is gone. {s3.FAULTS['NO_SUCH_BUCKET']}")


def is_s3(source: str) -> bool:
    """Whether a source is a URI of S3."""
    return source.startswith("s3://")


def advice(source: str, error: OSError) -> str:
    """What to do about a fault of a source, in one line."""
    return s3.advice(error) if is_s3(source) else f"Name a folder: -P source=FOLDER ({error})"
