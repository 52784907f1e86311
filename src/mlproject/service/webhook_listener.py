"""The webhook listener of `watch`: receives MLflow's events; no Spark.

An event only triggers the next reconciliation sooner. What is to be done is read from the registry
itself, so the content of an event is not read, and an event that is lost, sent twice or invented by
somebody who knows the secret costs one reconciliation at most.

MLflow's server signs `id.timestamp.body` with HMAC-SHA256. It tries a delivery four times (again
after 429, 5xx and lost connections), with one id and one timestamp: 4 * 30 s of patience and at
most 10 s between, so within 130 s. Another 4xx is neither tried again nor logged.
Source: mlflow 3.17.2, mlflow/webhooks/delivery.py
"""

import asyncio
import base64
import contextlib
import hashlib
import hmac
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import cast

import uvicorn
from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.telemetry import TelemetryConfig
from mlflow.webhooks.constants import (
    WEBHOOK_DELIVERY_ID_HEADER,
    WEBHOOK_SIGNATURE_HEADER,
    WEBHOOK_SIGNATURE_VERSION,
    WEBHOOK_TIMESTAMP_HEADER,
)
from uvicorn.protocols.http.h11_impl import H11Protocol

from mlproject.errors import UserError

PATH = "/mlflow"
BODY_BYTES = 65_536  # MLflow's events of aliases take about 300
BODY_S = 5.0  # MLflow sends it at once
CONNECTION_S = 10.0  # from its beginning to its end, whatever the client sends
CONNECTIONS = 100  # at once; each holds at most 16 KiB of headers and two times BODY_BYTES
BACKLOG = 128  # connections that the kernel accepts for us; asyncio takes as many at a time
WINDOW_S = 300  # between a delivery's timestamp and the clock, either way; MLflow tries for 130 s
SEEN = 10_000  # ids of deliveries that are remembered, of about 200 bytes each

_ID = re.compile(r"[0-9A-Za-z_-]{1,64}")  # no dot: signed text can be cut in one way only
_TIMESTAMP = re.compile(r"[0-9]{1,12}")


def receiver(
    secret: str, trigger: Callable[[], object], *, clock: Callable[[], float] = time.time
) -> FastAPI:
    """An app that calls a function for every event that MLflow signed: POST at `PATH`.

    It responds with 204 to an event, with 401 if it is not signed, or was signed too long ago, and
    with 404 to everything else. A delivery that was received before gets 204 as well and triggers
    nothing: MLflow sends it again when our first response was lost.

    `trigger` is called in the server's thread, which it must not block, as `threading.Event.set`.

    Raises:
        UserError: The secret is empty, with which MLflow would sign nothing.
    """
    if not secret:
        raise UserError("A webhook needs a secret: without one MLflow signs no event")
    # MLflow may have set up OpenTelemetry in this process; requests of strangers are not traced.
    silent = TelemetryConfig(tracing=False, metrics=False, logs=False, auto_configure=False)
    app = FastAPI(
        openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False, telemetry=silent
    )
    received: dict[str, float] = {}  # id -> when its timestamp is too old by itself; oldest first

    @app.post(PATH)
    async def receive(request: Request) -> Response:
        delivery_id, timestamp = _verified(secret, request.headers, await _body(request))
        now = clock()
        if abs(now - timestamp) > WINDOW_S:
            raise HTTPException(401, f"The clocks differ by {now - timestamp:.0f} s")
        if delivery_id not in received:
            trigger()  # before it is noted: if this fails, MLflow's next try triggers
            received[delivery_id] = now + 2 * WINDOW_S  # a timestamp may lie WINDOW_S ahead
        while received and (len(received) > SEEN or next(iter(received.values())) < now):
            del received[next(iter(received))]
        return Response(status_code=204)

    @app.exception_handler(404)
    @app.exception_handler(405)
    async def nothing_here(request: Request, error: Exception) -> Response:
        try:
            await _body(request)  # else the connection is reset before our response is read
        except HTTPException as worse:
            return Response(status_code=worse.status_code)
        return Response(status_code=404)

    return app


@contextlib.contextmanager
def listening(app: FastAPI, host: str, port: int) -> Iterator[int]:
    """Serves an app from a thread, as long as the context lasts, and gives the port.

    Signals stay with the caller. No client can keep others out: a connection serves one request
    and ends after `CONNECTION_S` whatever it does; beyond `CONNECTIONS` the oldest is ended for
    the newest. That is why uvicorn's `limit_concurrency` is unused: it turns the newest away, so
    that clients who never finish their headers would keep MLflow out.

    Port 0 picks a free one.

    Raises:
        UserError: One cannot listen there.
    """
    try:
        family = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM)[0][0]
        listener = socket.create_server((host, port), family=family, backlog=BACKLOG)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(
            f"Cannot listen for webhooks at {host}:{port} ({reason}). Choose another port: "
            "-P listen=HOST:PORT"
        ) from error
    with listener:
        taken = int(listener.getsockname()[1])
        server = _Server(
            uvicorn.Config(
                app,
                loop="asyncio",
                http=_Connection,
                ws="none",
                lifespan="off",
                log_config=None,
                log_level="error",  # warnings are what strangers send
                access_log=False,
                proxy_headers=False,
                server_header=False,
                headers=[("Connection", "close")],
                backlog=BACKLOG,
                timeout_graceful_shutdown=1,
            )
        )
        serving = {"sockets": [listener]}
        thread = threading.Thread(target=server.run, kwargs=serving, name="webhooks", daemon=True)
        thread.start()
        try:
            while thread.is_alive() and not server.started:
                time.sleep(0.01)
            yield taken
        finally:
            server.should_exit = True
            thread.join(timeout=5)


async def _body(request: Request) -> bytes:
    """A body, counted as it is received: a Content-Length may be wrong."""
    body, is_whole = bytearray(), False
    try:
        async with asyncio.timeout(BODY_S):
            while not is_whole:
                message = await request.receive()
                if message["type"] == "http.disconnect":
                    raise HTTPException(400)  # no client is left to receive it
                body += message.get("body", b"")
                is_whole = not message.get("more_body", False)
                if len(body) > BODY_BYTES:
                    raise HTTPException(413)
    except TimeoutError:
        raise HTTPException(408) from None
    return bytes(body)


def _verified(secret: str, headers: Mapping[str, str], body: bytes) -> tuple[str, int]:
    """Id and timestamp (seconds since 1970) of a delivery that is signed as MLflow signs."""
    delivery_id = headers.get(WEBHOOK_DELIVERY_ID_HEADER, "")
    timestamp = headers.get(WEBHOOK_TIMESTAMP_HEADER, "")
    sent = headers.get(WEBHOOK_SIGNATURE_HEADER, "")
    signed = f"{delivery_id}.{timestamp}.".encode() + body
    made = base64.b64encode(hmac.new(secret.encode(), signed, hashlib.sha256).digest())
    right = f"{WEBHOOK_SIGNATURE_VERSION},".encode() + made
    # Compared in any case, and in constant time.
    is_signed = hmac.compare_digest(right, sent.encode())
    if not (is_signed and _ID.fullmatch(delivery_id) and _TIMESTAMP.fullmatch(timestamp)):
        raise HTTPException(401, "The signature is wrong")
    return delivery_id, int(timestamp)


class _Server(uvicorn.Server):
    """A server that ends at once: a request that is cut off leaves no traceback."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for connection in list(self.server_state.connections):
            connection.transport.abort()
        await super().shutdown(sockets)


class _Connection(H11Protocol):
    """A connection that ends in time. uvicorn waits for headers for ever, as of 0.54."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.end = self.loop.call_later(CONNECTION_S, transport.abort)
        if len(self.connections) > CONNECTIONS:
            live = cast(set[_Connection], self.connections)
            oldest = min(live, key=lambda one: one.end.when())
            live.discard(oldest)  # its end is reported later, and others may come before
            oldest.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self.end.cancel()
        super().connection_lost(exc)
