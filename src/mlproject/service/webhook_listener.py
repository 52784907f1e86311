"""The doorbell of `watch`: hears MLflow's webhooks; no Spark.

A webhook only makes the next look at the registry come sooner. What is to be done is read from
the registry itself, so nothing here looks into what an event says, and an event that is lost,
doubled or made up by somebody who knows the secret costs one look at most.

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
SEEN = 10_000  # ids of deliveries that are remembered, of about 200 bytes each

_ID = re.compile(r"[0-9A-Za-z_-]{1,64}")  # no dot: signed text can be cut in one way only
_TIMESTAMP = re.compile(r"[0-9]{1,12}")


def receiver(
    secret: str,
    ring: Callable[[], object],
    *,
    clock: Callable[[], float] = time.time,
    window_s: float = 300,
) -> FastAPI:
    """An app that rings for every event that MLflow signed: POST at `PATH`, and nothing else.

    It answers 204 to an event and 401 to what is not signed, or signed too long ago; nobody
    else learns more than 404. A delivery that was heard before is answered 204 as well and does
    not ring: MLflow sends it again when our first answer was lost, and must hear that it arrived.

    Args:
        secret: What the webhook was registered with.
        ring: Called in the server's thread, which it must not hold up: `threading.Event.set`.
        clock: Seconds since 1970.
        window_s: How far the delivery's timestamp may be from the clock, either way. Longer than
            MLflow tries (130 s).

    Raises:
        UserError: The secret is empty, with which MLflow would sign nothing.
    """
    if not secret:
        raise UserError("A webhook needs a secret: without one MLflow signs nothing")
    # MLflow may have set up OpenTelemetry in this process; what strangers send is no trace of ours.
    silent = TelemetryConfig(tracing=False, metrics=False, logs=False, auto_configure=False)
    app = FastAPI(
        openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False, telemetry=silent
    )
    heard: dict[str, float] = {}  # id -> when its timestamp is too old by itself; oldest first

    @app.post(PATH)
    async def hear(request: Request) -> Response:
        delivery_id, timestamp = _verified(secret, request.headers, await _body(request))
        now = clock()
        if abs(now - timestamp) > window_s:
            raise HTTPException(401, f"The timestamp is {now - timestamp:.0f} s from this clock")
        if delivery_id not in heard:
            ring()  # before it is remembered: if this fails, MLflow's next try rings
            heard[delivery_id] = now + 2 * window_s  # a timestamp may lie window_s ahead
        while heard and (len(heard) > SEEN or next(iter(heard.values())) < now):
            del heard[next(iter(heard))]
        return Response(status_code=204)

    @app.exception_handler(404)
    @app.exception_handler(405)
    async def nothing_here(request: Request, error: Exception) -> Response:
        try:
            await _body(request)  # else the connection is reset before our answer is read
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

    Args:
        app: As `receiver` gives it.
        host: Address to listen at.
        port: 0 picks a free one.

    Raises:
        UserError: One cannot listen there.
    """
    try:
        family = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM)[0][0]
        listener = socket.create_server((host, port), family=family, backlog=BACKLOG)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(
            f"No webhooks can be heard at {host}:{port} ({reason}). Name another port; 0 picks one"
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
    """A body that is counted as it comes: nobody's Content-Length is believed."""
    body, is_whole = bytearray(), False
    try:
        async with asyncio.timeout(BODY_S):
            while not is_whole:
                message = await request.receive()
                if message["type"] == "http.disconnect":
                    raise HTTPException(400)  # nobody hears it
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
    said = headers.get(WEBHOOK_SIGNATURE_HEADER, "")
    signed = f"{delivery_id}.{timestamp}.".encode() + body
    made = base64.b64encode(hmac.new(secret.encode(), signed, hashlib.sha256).digest())
    right = f"{WEBHOOK_SIGNATURE_VERSION},".encode() + made
    # Compared in any case, and in constant time.
    is_signed = hmac.compare_digest(right, said.encode())
    if not (is_signed and _ID.fullmatch(delivery_id) and _TIMESTAMP.fullmatch(timestamp)):
        raise HTTPException(401, "No signature of ours")
    return delivery_id, int(timestamp)


class _Server(uvicorn.Server):
    """A server that ends when it is told to: whoever is cut off in a body gets no traceback."""

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
            live.discard(oldest)  # its end is told later, and others may come before
            oldest.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self.end.cancel()
        super().connection_lost(exc)
