"""Objects of a bucket in any store, by obstore, whose clients `s3` and `clouds` make."""

import io
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

import pyarrow as pa
from pyarrow import fs

from mlproject.errors import first_line

if TYPE_CHECKING:
    from obstore.store import ObjectStore


BLOCK_BYTES = 1024**2  # bytes read at a time


def blocks(store: "ObjectStore", key: str) -> Iterator[bytes]:
    """The bytes of an object, in blocks, by one request: all are of one version of it.

    Raises:
        FileNotFoundError: There is no such object.
        OSError: The server does not answer, or refuses.
    """
    import obstore

    with errors():
        found = obstore.get(store, key)
        for block in found.stream(min_chunk_size=BLOCK_BYTES):
            yield bytes(block)


def filesystem(store: "ObjectStore", bucket: str) -> fs.FileSystem:
    """The files of a bucket as pyarrow takes them; its name begins each path. Makes no request.

    pyarrow's own clients of Google and Azure take other keys than obstore and delta-rs.
    """
    return fs.PyFileSystem(_Bucket(store, bucket))


def is_atomic(store: "ObjectStore", root: str) -> bool:
    """Whether a server refuses to write an object that is there, as commits need.

    Writes an object below the folder, and removes it.

    Args:
        store: A bucket.
        root: Names of the bucket and the folder.

    Raises:
        OSError: The server does not answer, or refuses.
    """
    import obstore
    from obstore.exceptions import AlreadyExistsError

    key = "/".join([*root.split("/")[1:], f".probe-{uuid.uuid4()}"])
    with errors():
        obstore.put(store, key, b"1")
        try:
            obstore.put(store, key, b"2", mode="create")
        except AlreadyExistsError:
            return True
        finally:
            obstore.delete(store, key)
    return False


@contextmanager
def errors() -> Iterator[None]:
    """Errors of obstore in the block become OSError; that of a missing object is one already."""
    from obstore.exceptions import BaseError

    try:
        yield
    except (BaseError, ValueError) as error:  # the latter of a key that is no path
        raise OSError(first_line(error)) from error


class _Bucket(fs.FileSystemHandler):  # type: ignore[misc] # untyped
    """What tables need of a file system."""

    def __init__(self, store: "ObjectStore", bucket: str) -> None:
        self._store, self._prefix = store, f"{bucket}/"

    def get_type_name(self) -> str:
        return "obstore"

    def normalize_path(self, path: str) -> str:
        return path

    def get_file_info(self, paths: Sequence[str]) -> list[fs.FileInfo]:
        return [self._info(path) for path in paths]

    def get_file_info_selector(self, selector: fs.FileSelector) -> list[fs.FileInfo]:
        import obstore

        if not selector.recursive:
            raise NotImplementedError("only whole trees are listed")
        with errors():
            pages = obstore.list(self._store, self._key(selector.base_dir))
            return [self._made(entry) for page in pages for entry in page]

    def delete_file(self, path: str) -> None:
        import obstore

        with errors():
            obstore.delete(self._store, self._key(path))

    def open_input_file(self, path: str) -> pa.NativeFile:
        return pa.PythonFile(_Input(self._store, self._key(path)), mode="r")

    def open_output_stream(self, path: str, _: Any) -> pa.NativeFile:
        return pa.PythonFile(_Output(self._store, self._key(path)), mode="w")

    def _unsupported(self, *_: Any) -> None:
        raise NotImplementedError

    open_input_stream = open_input_file
    copy_file = create_dir = delete_dir = delete_dir_contents = _unsupported
    delete_root_dir_contents = move = open_append_stream = _unsupported

    def _key(self, path: str) -> str:
        return path.removeprefix(self._prefix)

    def _info(self, path: str) -> fs.FileInfo:
        import obstore

        try:
            with errors():
                return self._made(obstore.head(self._store, self._key(path)))
        except FileNotFoundError:
            return fs.FileInfo(path, fs.FileType.NotFound)

    def _made(self, entry: Any) -> fs.FileInfo:
        path, size, at = entry["path"], entry["size"], entry["last_modified"]
        return fs.FileInfo(f"{self._prefix}{path}", fs.FileType.File, size=size, mtime=at)


class _Input(io.RawIOBase):
    """An object that is read by ranges, each a request."""

    def __init__(self, store: "ObjectStore", key: str) -> None:
        import obstore

        with errors():
            self._size = obstore.head(store, key)["size"]
        self._store, self._key, self._at = store, key, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        return self._at

    def readinto(self, buffer: Any) -> int:
        import obstore

        count = min(len(buffer), self._size - self._at)
        if count <= 0:
            return 0
        with errors():
            read = obstore.get_range(self._store, self._key, start=self._at, length=count)
        buffer[:count] = memoryview(cast(Any, read))
        self._at += count
        return count


class _Output(io.RawIOBase):
    """An object that is there once it is closed, with what was written until then."""

    def __init__(self, store: "ObjectStore", key: str) -> None:
        import obstore

        self._writer, self._at = obstore.open_writer(store, key), 0
        self._failed: OSError | None = None

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def write(self, data: Any) -> int:
        try:
            with errors():
                self._writer.write(bytes(data))
        except OSError as error:
            self._failed = error
            raise
        self._at += len(data)
        return len(data)

    def close(self) -> None:
        if self.closed:
            return
        try:
            with errors():
                self._writer.close()
        except OSError as error:  # after a failed write it says less than that one did
            raise (self._failed or error) from error
        finally:
            super().close()
