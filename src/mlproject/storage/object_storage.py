"""File systems of folders and URIs: local, S3, and those that pyarrow can open."""

import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from pathlib import Path

import pyarrow as pa
from pyarrow import fs

from mlproject.errors import UserError, first_line
from mlproject.storage import aws, lookups, s3, s3_errors
from mlproject.storage.local_files import local_path


class FileChangedError(OSError):
    """A file was replaced while it was read."""


def is_broken(error: Exception) -> bool:
    """Whether a connection to a server failed, broke or timed out, or the server itself failed."""
    return s3_errors.kind(error) in s3_errors.OF_THE_MACHINE


def is_outage(error: Exception) -> bool:
    """Whether a client of S3 says that its server is away, or fails."""
    return s3_errors.is_of_s3(error) and is_broken(error)


def is_refusal(error: Exception) -> bool:
    """Whether a server answered and refused access to what was asked for, but not the key."""
    return s3_errors.kind(error) == "access"


def open_source(source: str) -> tuple[str, fs.FileSystem, str]:
    """The root of a source, its file system, and the prefix that makes its paths canonical.

    Raises:
        UserError: The source is not a folder, or pyarrow cannot open it.
    """
    if "://" not in source or source.startswith("file:"):
        root = local_path(source)
        if not root.is_dir():
            raise UserError(f"Source {source!r} is not a folder. Name one: -P source=FOLDER")
        return str(root), fs.LocalFileSystem(), ""
    try:
        if is_s3(source):
            folder = s3.folder(source)
            return folder.root, s3.filesystem(folder), "s3://"
        filesystem, root = fs.FileSystem.from_uri(source)
    except (pa.ArrowInvalid, OSError, NotImplementedError) as error:
        raise UserError(
            f"Source {source!r} cannot be opened ({first_line(error)}). Name a folder: "
            "-P source=FOLDER"
        ) from error
    return root.rstrip("/"), filesystem, source.split("://", maxsplit=1)[0] + "://"


def pages(source: str) -> Callable[[str, str], lookups.Page]:
    """A function that lists a folder of a source on object storage.

    It takes the folder's path and the token of the page before, "" for the first, and raises
    OSError where the server does not answer, or refuses.
    """
    if is_s3(source):
        folder = s3.folder(source)
        return partial(lookups.s3_page, lookups.s3_client(folder), folder)
    root, filesystem, _ = open_source(source)
    return lambda path, _: lookups.pyarrow_page(filesystem, root, path)


def reader(source: str) -> Callable[[str], Iterator[bytes]]:
    """A function that reads a file of a source, given its canonical path: its bytes, in blocks.

    All blocks are of one version of the file where it is on object storage.

    Raises:
        FileChangedError: The file was replaced while it was read.
        FileNotFoundError: It is not there.
        OSError: It cannot be read, or its server does not answer.
    """
    if is_s3(source):
        bucket = s3.store(s3.folder(source))
        return lambda path: s3.blocks(bucket, path.removeprefix("s3://"))
    _, filesystem, prefix = open_source(source)
    if not prefix:
        return _local_blocks
    return lambda path: _remote_blocks(filesystem, path.removeprefix(prefix))


def blocks(path: str) -> Iterator[bytes]:
    """As `reader`, of a canonical path, whose server is the default of its scheme."""
    if "://" not in path:
        return _local_blocks(path)
    return reader("/".join(path.split("/")[:3]))(path)


def _local_blocks(path: str) -> Iterator[bytes]:
    with Path(path).open("rb", buffering=0) as file:
        while block := file.read(s3.BLOCK_BYTES):
            yield block


def _remote_blocks(filesystem: fs.FileSystem, path: str) -> Iterator[bytes]:
    with filesystem.open_input_stream(path, compression=None) as stream:
        version = stream.metadata()
        while block := stream.read(s3.BLOCK_BYTES):
            yield block
    # The size and each block are requests of their own: an object that is overwritten meanwhile
    # mixes two contents, and has another ETag. Source: Arrow C++, ObjectInputFile::Init and ReadAt
    with filesystem.open_input_stream(path, compression=None) as stream:
        if stream.metadata() != version:
            raise FileChangedError(path)


def open_path(path: str) -> tuple[fs.FileSystem, str]:
    """The file system of a canonical path, and the path within it.

    A server other than the default of the scheme must be named in the environment.
    """
    if "://" not in path:
        return fs.LocalFileSystem(), path
    scheme, inner = path.split("://", maxsplit=1)
    bucket, _, below = inner.partition("/")
    if is_s3(path):
        return s3.filesystem(s3.folder(f"{scheme}://{bucket}")), inner
    root, filesystem = _remote(f"{scheme}://{bucket}")
    return filesystem, f"{root}/{below}"


@cache
def _remote(bucket: str) -> tuple[str, fs.FileSystem]:
    return open_source(bucket)[:2]


def delta_options(path: str) -> dict[str, str] | None:
    """The settings with which delta-rs opens a path; None = it finds them in the environment."""
    return s3.delta_options(s3.folder(path)) if is_s3(path) else None


def certificates() -> str:
    """The file of certificates that servers of S3 are checked with; "" = those of the system."""
    return aws.certificates()


def is_atomic(path: str) -> bool:
    """Whether of two writers who make the same file one is refused, as far as two writes show.

    Raises:
        OSError: The file system does not answer, or refuses.
    """
    return s3.is_atomic(s3.folder(path)) if is_s3(path) else True


def spark_options(path: str) -> dict[str, str]:
    """The options with which Spark reads below a path."""
    return s3.hadoop_options(s3.folder(path)) if is_s3(path) else {}


def missing_files(source: str, paths: list[str]) -> list[bool]:
    """Whether the file of each canonical path is missing; a refused one counts as existing.

    Raises:
        UserError: The source is missing, or its server does not answer.
    """
    require(source)
    if is_s3(source):
        keys = [path.removeprefix("s3://") for path in paths]
        with ThreadPoolExecutor(lookups.LISTED_AT_ONCE) as pool:
            return list(pool.map(partial(_is_missing_in_s3, source), keys))
    _, filesystem, prefix = open_source(source)
    inner = [path.removeprefix(prefix) for path in paths]
    try:
        return [info.type == fs.FileType.NotFound for info in filesystem.get_file_info(inner)]
    except OSError:
        return [_is_not_found(filesystem, path) for path in inner]


def _is_missing_in_s3(source: str, path: str) -> bool:
    folder = s3.folder(source)
    try:
        return lookups.is_missing_in_s3(lookups.s3_client(folder), folder, path)
    except OSError as error:
        if is_refusal(error):
            return False
        raise UserError(f"Source {source!r} does not answer. {advice(source, error)}") from error


def _is_not_found(filesystem: fs.FileSystem, path: str) -> bool:
    try:
        return bool(filesystem.get_file_info(path).type == fs.FileType.NotFound)
    except OSError:
        return False


def require(source: str) -> None:
    """Raises UserError when a source is missing or does not answer.

    Without its bucket, each file of a source in S3 looks removed. Source: S3, HeadObject, which
    gives the same status for a missing bucket and a missing key.
    """
    root, _, _ = open_source(source)
    # A bucket whose access is refused exists: this user may list only some of its folders.
    if is_s3(source) and _is_missing_in_s3(source, root.split("/")[0]):
        raise UserError(
            f"Source {source!r} is missing: there is no such bucket. Name one: s3://BUCKET/FOLDER"
        )


def with_server(source: str) -> str:
    """A source as a URI that names its server too, where its scheme has several."""
    return s3.folder(source).uri() if is_s3(source) else source


def is_s3(source: str) -> bool:
    """Whether a source is an S3 URI."""
    return source.startswith(("s3://", "s3a://"))


def one_line(error: Exception) -> str:
    """The message of a client or of deltalake in one line, with advice where it is of S3."""
    if s3_errors.is_of_s3(error):
        return s3_errors.advice(error)
    return " ".join(re.sub(r"\x1b\[\d+m", "", str(error)).split())[:300]


def advice(source: str, error: OSError) -> str:
    """What to do about an error of a source, in one line."""
    if is_s3(source):
        return s3_errors.advice(error)
    return f"Name a folder: -P source=FOLDER ({error})"
