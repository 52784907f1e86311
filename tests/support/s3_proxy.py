"""A server before another that waits, fails now and then, hangs, wants a token, or is away."""

import contextlib
import http.client
import http.server
import multiprocessing
import random
import socket
import threading
import time
from typing import cast
from urllib.parse import urlsplit

from tests.support.local_servers import serving, url_of

# Headers of one connection. Source: RFC 9110, 7.6.1
HOP_BY_HOP = ("connection", "content-length", "expect", "keep-alive", "transfer-encoding")


class FaultyServer(http.server.ThreadingHTTPServer):
    """Passes requests of any kind on, and their responses back.

    Args:
        behind: URL of the server that responds.
        wait_s: Seconds that each request waits, as over a long way.
        failing: Share of the requests that get 503 or 500, half of them after they were done.
        hanging: Share of the requests that never get a response.
        seed: Of the requests that are chosen.
        unconditional: Whether conditions of writes are ignored, as some servers do.
        token: Requests without this bearer token get 401.
    """

    daemon_threads = True
    request_queue_size = 512

    def __init__(
        self,
        behind,
        *,
        wait_s=0.0,
        failing=0.0,
        hanging=0.0,
        seed=0,
        unconditional=False,
        token="",
    ):
        super().__init__(("127.0.0.1", 0), _Request)
        place = urlsplit(behind)
        self.behind = str(place.hostname), int(place.port or 80)
        self.wait_s, self.failing, self.hanging = wait_s, failing, hanging
        self.dice, self.lock = random.Random(seed), threading.Lock()
        self.faults, self.token = 0, token
        self.left_out = {*HOP_BY_HOP, "if-none-match"} if unconditional else HOP_BY_HOP
        self.away = threading.Event()
        self.ended = threading.Event()

    @property
    def url(self):
        return url_of(self)

    @contextlib.contextmanager
    def running(self):
        with serving(self):
            yield self

    def shutdown(self):
        self.ended.set()
        super().shutdown()

    def chosen(self, share):
        with self.lock:
            is_chosen = self.dice.random() < share
            self.faults += is_chosen
            return is_chosen

    def handle_error(self, request, client_address):  # a client that gave up
        pass


class _Request(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def setup(self):
        super().setup()
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.upstream = None

    def finish(self):
        if self.upstream:
            self.upstream.close()
        super().finish()

    def pass_on(self):
        server = cast(FaultyServer, self.server)
        if server.away.is_set():
            self.close_connection = True
            return
        body = self.body()
        if server.token and self.headers.get("Authorization") != f"Bearer {server.token}":
            self.send_error(401)
            return
        if server.chosen(server.hanging):
            server.ended.wait()
            self.close_connection = True
            return
        fails = server.chosen(server.failing)
        is_done = not fails or server.chosen(0.5)
        time.sleep(server.wait_s)
        answer, headers, content = self.responded(server, body) if is_done else (503, [], b"")
        if fails:
            answer, headers, content = (503 if is_done else 500), [], b""
        self.send_response_only(answer)
        for name, value in headers:
            self.send_header(name, value)
        if not any(name.lower() == "content-length" for name, _ in headers):
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def body(self):
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        while self.rfile.readline().strip():  # trailers
            pass
        return b"".join(parts)

    def responded(self, server, body):
        """Status, headers and bytes of the server behind, over one connection."""
        for is_last in (False, True):
            self.upstream = self.upstream or http.client.HTTPConnection(*server.behind, timeout=60)
            try:
                self.upstream.putrequest(
                    self.command, self.path, skip_host=True, skip_accept_encoding=True
                )
                for name, value in self.headers.items():
                    if name.lower() not in server.left_out:
                        self.upstream.putheader(name, value)
                if body or self.command in ("PUT", "POST"):
                    self.upstream.putheader("Content-Length", str(len(body)))
                self.upstream.endheaders(body)
                response = self.upstream.getresponse()
                content = response.read()
            except (OSError, http.client.HTTPException):  # it had ended a connection that was kept
                self.upstream.close()
                self.upstream = None
                if is_last:
                    raise
                continue
            headers = [
                (name, value)
                for name, value in response.getheaders()
                if name.lower() not in HOP_BY_HOP or name.lower() == "content-length"
            ]
            return response.status, headers, content
        raise AssertionError

    do_GET = do_PUT = do_POST = do_PATCH = do_DELETE = do_HEAD = pass_on  # noqa: N815 - its names

    def log_message(self, format, *args):  # noqa: A002 - the library's name
        pass


@contextlib.contextmanager
def in_process(behind, **options):
    """The URL of such a server in a process of its own: delta-rs holds Python's lock at times."""
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.Process(target=_serve, args=(behind, options, theirs), daemon=True)
    process.start()
    try:
        yield ours.recv()
    finally:
        process.kill()
        process.join()


def _serve(behind, options, pipe):
    server = FaultyServer(behind, **options)
    pipe.send(server.url)
    server.serve_forever()
