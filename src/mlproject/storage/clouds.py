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

from mlproject.errors import UserError
from mlproject.storage import buckets, s3
from mlproject.storage.lookups import Page

if TYPE_CHECKING:
    from obstore.store import ObjectStore

SCHEMES = ("gs://", "abfs://", "abfss://")
_NAMES = re.compile(
    r"(?:(?P<gs>gs://)|abfss?://)(?P<bucket>[\w.-]+(?(gs)|@[\w-]+\.dfs\.core\.windows\.net))"
    r"(?P<folder>/[^?]*)?"
)
# What gives access to Azure, one of them; where none is set, the role of the machine does.
_AZURE_KEYS = (
    "AZURE_STORAGE_ACCOUNT_KEY",
    "AZURE_STORAGE_SAS_TOKEN",
    "AZURE_CLIENT_SECRET",
    "AZURE_FEDERATED_TOKEN_FILE",
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
            f"The URI of {source.partition(':')[0]} cannot be opened. Write "
            "gs://BUCKET/FOLDER, or abfss://CONTAINER@ACCOUNT.dfs.core.windows.net/FOLDER, and set "
            "keys in the environment"
        )
    return f"{found['bucket']}{(found['folder'] or '').rstrip('/')}", found["gs"] or "abfss://"


def _is_plain() -> bool:
    servers = (os.environ.get(name, "") for name in _SERVERS)
    return (
        any(server.startswith("http://") for server in servers)
        or os.environ.get("AZURE_STORAGE_USE_EMULATOR") == "true"
    )


def _store(bucket: str) -> "ObjectStore":
    """The client of a bucket, one as long as the environment is the same."""
    read = ("GOOGLE_", "AZURE_", "AZURITE_", "SSL_CERT_FILE", "HTTPS_PROXY")
    facts = {name: word for name, word in os.environ.items() if name.startswith(read)}
    return _store_of(bucket, tuple(sorted(facts.items())))


@lru_cache(8)
def _store_of(bucket: str, environment: tuple[tuple[str, str], ...]) -> "ObjectStore":
    from obstore.store import from_url

    options = {
        "allow_http": _is_plain(),
        "connect_timeout": timedelta(seconds=s3.CONNECT_SECONDS),
        "read_timeout": timedelta(seconds=s3.SILENT_SECONDS),
        "timeout": timedelta(seconds=s3.WHOLE_SECONDS),
    }
    retries = {"max_retries": s3.ATTEMPTS - 1}
    with buckets.errors():
        return from_url(bucket, client_options=cast(Any, options), retry_config=cast(Any, retries))


def bucket(path: str) -> "tuple[ObjectStore, str]":
    """The bucket of a URI, and its name; that of Azure has the account too. Makes no request."""
    root, prefix = split(path)
    name = root.partition("/")[0]
    return _store(f"{prefix}{name}"), name


def _require_one_key(prefix: str) -> None:
    """Raises UserError where the clients that write and read a lake would take different keys."""
    unsigned = "GOOGLE_SKIP_SIGNATURE" if prefix == "gs://" else "AZURE_SKIP_SIGNATURE"
    if os.environ.get(unsigned, "").lower() == "true":
        raise UserError(f"A lake cannot be used without a key. Unset {unsigned}, and name one")
    named = [name for name in _AZURE_KEYS if os.environ.get(name)]
    if prefix != "gs://" and len(named) > 1 and named[0] != _AZURE_KEYS[0]:
        raise UserError(
            f"{' and '.join(named)} are set, of which each client would take another. Unset all "
            "but one"
        )


def delta_options(path: str) -> dict[str, str]:
    """The settings of delta-rs for a URI, beside those of the environment.

    Raises:
        UserError: Requests are not to be signed, or several keys are named.
    """
    _require_one_key(split(path)[1])
    return {
        "allow_http": str(_is_plain()).lower(),
        "connect_timeout": f"{s3.CONNECT_SECONDS:g}s",
    }


def hadoop_options(path: str) -> dict[str, str]:
    """The options of Spark's readers for a URI. Sources: hadoop-gcp; hadoop-azure, ABFS."""
    root, prefix = split(path)
    if prefix == "gs://":
        return {"fs.gs.auth.type": "APPLICATION_DEFAULT"}
    account = root.partition("/")[0].partition("@")[2]
    return {f"{key}.{account}": word for key, word in _azure_key().items()}


def _azure_key() -> dict[str, str]:
    """The settings of ABFS that give access, as the environment names it for object_store too."""
    key, token, secret, file = (os.environ.get(name, "") for name in _AZURE_KEYS)
    if key:
        return {"fs.azure.account.auth.type": "SharedKey", "fs.azure.account.key": key}
    if token:
        return {"fs.azure.account.auth.type": "SAS", "fs.azure.sas.fixed.token": token}
    user, tenant = (os.environ.get(f"AZURE_{name}_ID", "") for name in ("CLIENT", "TENANT"))
    kind = "ClientCreds" if secret else "WorkloadIdentity" if file else "Msi"
    facts = {
        "client.id": user,
        "client.secret": secret,
        "client.endpoint": secret and f"https://login.microsoftonline.com/{tenant}/oauth2/token",
        "msi.tenant": tenant,
        "token.file": file,
    }
    provider = f"org.apache.hadoop.fs.azurebfs.oauth2.{kind}TokenProvider"
    return {
        "fs.azure.account.auth.type": "OAuth",
        "fs.azure.account.oauth.provider.type": provider,
        **{f"fs.azure.account.oauth2.{name}": word for name, word in facts.items() if word},
    }


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

    bucket, _, below = path.partition("/")
    store, _ = _place(f"{prefix}{bucket}")
    with buckets.errors():
        found = obstore.list_with_delimiter(store, below or None)
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
    return buckets.blocks(*_place(path))


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

    store, key = _place(path)
    try:
        with buckets.errors():
            if key:
                obstore.head(store, key)
            else:
                next(iter(obstore.list(store, chunk_size=1)), None)
    except FileNotFoundError:
        return True
    return False
