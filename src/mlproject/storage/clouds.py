"""Google Cloud Storage and Azure Blob Storage, by obstore.

Keys and servers are those of the environment, as delta-rs takes them from there too. Sources: the
Rust crate object_store, GoogleConfigKey and AzureConfigKey.
"""

import os
import re
from collections.abc import Iterator
from datetime import timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Any, cast

from mlproject.errors import UserError, first_line
from mlproject.storage import s3
from mlproject.storage.lookups import Page

if TYPE_CHECKING:
    from obstore.store import ObjectStore

SCHEMES = ("gs://", "abfs://", "abfss://")
_NAMES = re.compile(
    r"(?:(?P<gs>gs://)|abfss?://)(?P<bucket>[\w.-]+(?(gs)|@[\w-]+\.dfs\.core\.windows\.net))"
    r"(?P<folder>/[^?]*)?"
)
_SERVERS = ("GOOGLE_BASE_URL", "AZURE_STORAGE_ENDPOINT", "AZURE_ENDPOINT")


def split(source: str) -> tuple[str, str]:
    """The root of a source, and the prefix that makes its paths URIs.

    The first name of the root is a bucket, or a container with its account.

    Raises:
        UserError: It has another form. The message does not repeat it, as a key may be in it.
    """
    found = _NAMES.fullmatch(source)
    if not found:
        raise UserError(
            f"The source, a URI of {source.partition(':')[0]}, cannot be opened. Write "
            "gs://BUCKET/FOLDER, or abfss://CONTAINER@ACCOUNT.dfs.core.windows.net/FOLDER, and set "
            "keys in the environment"
        )
    return f"{found['bucket']}{(found['folder'] or '').rstrip('/')}", found["gs"] or "abfss://"


@lru_cache(8)
def _store(bucket: str) -> "ObjectStore":
    from obstore.store import from_url

    is_plain = any(os.environ.get(name, "").startswith("http://") for name in _SERVERS)
    options = {
        "allow_http": is_plain or os.environ.get("AZURE_STORAGE_USE_EMULATOR") == "true",
        "connect_timeout": timedelta(seconds=s3.CONNECT_SECONDS),
        "read_timeout": timedelta(seconds=s3.SILENT_SECONDS),
        "timeout": timedelta(seconds=s3.WHOLE_SECONDS),
    }
    retries = {"max_retries": s3.ATTEMPTS - 1}
    return from_url(bucket, client_options=cast(Any, options), retry_config=cast(Any, retries))


def _place(path: str) -> "tuple[ObjectStore, str]":
    """The bucket of a path with its prefix, and the key."""
    scheme, _, inner = path.partition("://")
    bucket, _, key = inner.partition("/")
    return _store(f"{scheme}://{bucket}"), key


def page(prefix: str, root: str, path: str) -> Page:
    """All entries of a folder, which obstore gives whole.

    Args:
        prefix: As `split` gives it.
        root: As `split` gives it; one without objects is an error.
        path: Names of the bucket and of folders in it.

    Raises:
        FileNotFoundError: The source has no object.
        OSError: The server does not answer, or refuses; or a key in the folder is no path.
    """
    import obstore
    from obstore.exceptions import BaseError

    bucket, _, below = path.partition("/")
    store, _ = _place(f"{prefix}{bucket}")
    try:
        found = obstore.list_with_delimiter(store, below or None)
    except BaseError as error:
        raise OSError(first_line(error)) from error
    files = [
        (f"{bucket}/{one['path']}", one["size"], int(one["last_modified"].timestamp()) * 1_000_000)
        for one in found["objects"]
        if one["path"] != below  # an object without bytes that marks the folder
    ]
    folders = [f"{bucket}/{one}" for one in found["common_prefixes"]]
    if below and path == root and not (files or folders):
        raise FileNotFoundError("no object's name begins so")
    return Page(files, folders)


def blocks(path: str) -> Iterator[bytes]:
    """The bytes of an object, in blocks, by one request; its path begins with the prefix.

    Raises:
        FileNotFoundError: There is no such object.
        OSError: The server does not answer, or refuses.
    """
    return s3.blocks(*_place(path))


def open_file(path: str) -> Any:
    """An object as a binary file that can be read from any place."""
    import obstore

    return obstore.open_reader(*_place(path))


def is_missing(path: str) -> bool:
    """Whether there is no such object; of a bucket alone, whether it cannot be listed.

    Raises:
        OSError: The server does not answer, or refuses.
    """
    import obstore
    from obstore.exceptions import BaseError

    store, key = _place(path)
    try:
        if key:
            obstore.head(store, key)
        else:
            next(iter(obstore.list(store, chunk_size=1)), None)
    except FileNotFoundError:
        return True
    except BaseError as error:
        raise OSError(first_line(error)) from error
    return False
