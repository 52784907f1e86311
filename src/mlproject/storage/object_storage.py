"""Folders and URIs: local, S3, Google, Azure, and what else pyarrow can open."""

import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import cache, partial
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import fs

from mlproject.errors import UserError, first_line
from mlproject.storage import aws, buckets, clouds, lookups, s3, store_errors
from mlproject.storage.local_files import local_path


class FileChangedError(OSError):
    """A file was replaced while it was read."""


def is_broken(error: Exception) -> bool:
    """Whether a connection to a server failed, broke or timed out, or the server itself failed."""
    return store_errors.kind(error) in store_errors.OF_THE_MACHINE


def outage(error: Exception) -> str:
    """The name of the object store whose client says that its server is away, or fails; "" = no."""
    return store_errors.store(error) if is_broken(error) else ""


def is_refusal(error: Exception) -> bool:
    """Whether a server answered and refused access to what was asked for, but not the key."""
    return store_errors.kind(error) == "access"


def open_source(source: str) -> tuple[str, str]:
    """The root of a source, and the prefix that makes its paths canonical.

    Raises:
        UserError: The source is not a folder, or cannot be opened.
    """
    if is_cloud(source):
        return clouds.split(source)
    root, _, prefix = filesystem(source)
    return root, prefix


def filesystem(source: str) -> tuple[str, fs.FileSystem, str]:
    """As `open_source`, with the file system, of a source that is not in Google's or Azure's cloud.

    Raises:
        UserError: As `open_source`.
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
        found, root = fs.FileSystem.from_uri(source)
    except (pa.ArrowInvalid, OSError, NotImplementedError) as error:
        raise UserError(
            f"Source {source!r} cannot be opened ({first_line(error)}). Name a folder: "
            "-P source=FOLDER"
        ) from error
    return root.rstrip("/"), found, source.split("://", maxsplit=1)[0] + "://"


def pages(source: str) -> Callable[[str, str], lookups.Page]:
    """A function that lists a folder of a source on object storage.

    It takes the folder's path and the token of the page before, "" for the first, and raises
    OSError where the server does not answer, or refuses.
    """
    if is_s3(source):
        folder = s3.folder(source)
        return partial(lookups.s3_page, lookups.s3_client(folder), folder)
    if is_cloud(source):
        root, prefix = clouds.split(source)
        return lambda path, _: clouds.page(prefix, root, path)
    root, found, _ = filesystem(source)
    return lambda path, _: lookups.pyarrow_page(found, root, path)


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
        return lambda path: buckets.blocks(bucket, path.removeprefix("s3://").partition("/")[2])
    if is_cloud(source):
        return clouds.blocks
    _, found, prefix = filesystem(source)
    if not prefix:
        return _local_blocks
    return lambda path: _remote_blocks(found, path.removeprefix(prefix))


def open_file(source: str, path: str) -> Any:
    """A file of a source, given its canonical path, as one that can be read from any place."""
    if is_cloud(source):
        return closing(clouds.open_file(path))
    _, found, prefix = filesystem(source)
    return found.open_input_file(path.removeprefix(prefix))


def blocks(path: str) -> Iterator[bytes]:
    """As `reader`, of a canonical path, whose server is the default of its scheme."""
    if "://" not in path:
        return _local_blocks(path)
    return reader("/".join(path.split("/")[:3]))(path)


def _local_blocks(path: str) -> Iterator[bytes]:
    with Path(path).open("rb", buffering=0) as file:
        while block := file.read(buckets.BLOCK_BYTES):
            yield block


def _remote_blocks(found: fs.FileSystem, path: str) -> Iterator[bytes]:
    with found.open_input_stream(path, compression=None) as stream:
        version = stream.metadata()
        while block := stream.read(buckets.BLOCK_BYTES):
            yield block
    # The size and each block are requests of their own: an object that is overwritten meanwhile
    # mixes two contents, and has another ETag. Source: Arrow C++, ObjectInputFile::Init and ReadAt
    with found.open_input_stream(path, compression=None) as stream:
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
    if is_cloud(path):
        return buckets.filesystem(*clouds.bucket(path)), inner
    root, found = _remote(f"{scheme}://{bucket}")
    return found, f"{root}/{below}"


@cache
def _remote(bucket: str) -> tuple[str, fs.FileSystem]:
    return filesystem(bucket)[:2]


def delta_options(path: str) -> dict[str, str] | None:
    """The settings with which delta-rs opens a path; None = it finds them in the environment."""
    if is_cloud(path):
        return clouds.delta_options(path)
    return s3.delta_options(s3.folder(path)) if is_s3(path) else None


def certificates() -> str:
    """The file of certificates that servers of S3 are checked with; "" = those of the system."""
    return aws.certificates()


def is_atomic(path: str) -> bool:
    """Whether of two writers who make the same file one is refused, as far as two writes show.

    Raises:
        OSError: The file system does not answer, or refuses.
    """
    if is_cloud(path):
        store, _ = clouds.bucket(path)
        return buckets.is_atomic(store, clouds.split(path)[0])
    if is_s3(path):
        folder = s3.folder(path)
        return buckets.is_atomic(s3.store(folder), folder.root)
    return True


def spark_options(path: str) -> dict[str, str]:
    """The options with which Spark reads below a path."""
    if is_cloud(path):
        return clouds.hadoop_options(path)
    return s3.hadoop_options(s3.folder(path)) if is_s3(path) else {}


def missing_files(source: str, paths: list[str]) -> list[bool]:
    """Whether the file of each canonical path is missing; a refused one counts as existing.

    Raises:
        UserError: The source is missing, or its server does not answer.
    """
    require(source)
    if is_s3(source) or is_cloud(source):
        is_missing = partial(_is_missing, source, _look_up(source))
        with ThreadPoolExecutor(lookups.LISTED_AT_ONCE) as pool:
            return list(pool.map(is_missing, paths))
    _, found, prefix = filesystem(source)
    inner = [path.removeprefix(prefix) for path in paths]
    try:
        return [info.type == fs.FileType.NotFound for info in found.get_file_info(inner)]
    except OSError:
        return [_is_not_found(found, path) for path in inner]


def _look_up(source: str) -> Callable[[str], bool]:
    """A function that asks the object store of a source whether a canonical path is missing."""
    if is_cloud(source):
        return clouds.is_missing
    folder = s3.folder(source)
    client = lookups.s3_client(folder)
    return lambda path: lookups.is_missing_in_s3(client, folder, path.removeprefix("s3://"))


def _is_missing(source: str, look_up: Callable[[str], bool], path: str) -> bool:
    try:
        return look_up(path)
    except OSError as error:
        if is_refusal(error):
            return False
        raise UserError(f"Source {source!r} does not answer. {advice(source, error)}") from error


def _is_not_found(found: fs.FileSystem, path: str) -> bool:
    try:
        return bool(found.get_file_info(path).type == fs.FileType.NotFound)
    except OSError:
        return False


def require(source: str) -> None:
    """Raises UserError when a source is missing or does not answer.

    Without its bucket, each file of a source in S3 looks removed. Source: S3, HeadObject, which
    gives the same status for a missing bucket and a missing key.
    """
    root, prefix = open_source(source)
    if not (is_s3(source) or is_cloud(source)):
        return
    # A bucket whose access is refused exists: this user may list only some of its folders.
    if _is_missing(source, _look_up(source), f"{prefix}{root.split('/')[0]}"):
        raise UserError(
            f"Source {source!r} is missing: there is no such bucket. Name one: "
            f"{store_errors.uri(source)}"
        )


def with_server(source: str) -> str:
    """A source as a URI that names its server too, where its scheme has several."""
    if is_cloud(source):
        root, prefix = clouds.split(source)
        return f"{prefix}{root}"
    return s3.folder(source).uri() if is_s3(source) else source


def store_of(path: str) -> str:
    """The kind of object store that a path or URI is in: s3, gs or abfss; "" = none of these."""
    if is_s3(path):
        return "s3"
    if is_cloud(path):
        return "gs" if path.startswith("gs:") else "abfss"
    return ""


def is_s3(source: str) -> bool:
    """Whether a source is an S3 URI."""
    return source.startswith(("s3://", "s3a://"))


def is_cloud(source: str) -> bool:
    """Whether a source is a URI of Google's or Azure's cloud."""
    return source.startswith(clouds.SCHEMES)


def one_line(error: Exception) -> str:
    """The message of a client or of deltalake in one line, with advice where it is of a store."""
    if store_errors.store(error):
        return store_errors.advice(error)
    return " ".join(re.sub(r"\x1b\[\d+m", "", str(error)).split())[:300]


def advice(source: str, error: OSError) -> str:
    """What to do about an error of a source, in one line."""
    if is_s3(source) or is_cloud(source):
        return store_errors.advice(error, source)
    return f"Name a folder: -P source=FOLDER ({error})"
