"""Events signed as MLflow signs them, and a client of the webhook listener that sends any bytes."""

import contextlib
import socket
import time
import uuid

import requests
from mlflow.webhooks.delivery import _generate_hmac_signature as mlflows_signature

SECRET = "what only the server and we know"  # noqa: S105 - of these tests
EVENT = b'{"entity": "model_version_alias", "action": "created", "data": {"alias": "h\xc3\xa9ro"}}'


def signed(body=EVENT, *, secret=SECRET, late_s=0, **others):
    """Headers as MLflow sends them, of an event that was made some seconds ago."""
    sent = {"id": str(uuid.uuid4()), "timestamp": str(int(time.time() - late_s)), **others}
    signature = mlflows_signature(secret, sent["id"], sent["timestamp"], body.decode())
    return {
        "X-MLflow-Delivery-Id": sent["id"],
        "X-MLflow-Timestamp": sent["timestamp"],
        "X-MLflow-Signature": signature,
    }


def raw(headers, body=b"", first="POST /mlflow HTTP/1.1"):
    """A request as bytes, with the headers that are given and no other."""
    lines = [first, "Host: here", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


class Listener:
    """The listener at a port, and how often it triggered."""

    def __init__(self, port):
        self.port = port
        self.triggers = 0

    def trigger(self):
        self.triggers += 1

    def post(self, headers, body=EVENT, path="/mlflow", method="POST"):
        url = f"http://127.0.0.1:{self.port}{path}"
        return requests.request(method, url, data=body, headers=headers, timeout=20).status_code

    def open(self, sent):
        opened = socket.create_connection(("127.0.0.1", self.port), timeout=20)
        opened.sendall(sent)
        return opened

    def send(self, sent):
        """The status of the answer to these bytes; 0 when the connection was ended instead."""
        with self.open(sent) as opened:
            try:
                answer = opened.recv(65536)
            except ConnectionResetError:
                answer = b""
        return int(answer.split()[1]) if answer else 0


def at_end(opened):
    """Whether the other side ended a connection; waits for it."""
    with opened, contextlib.suppress(ConnectionResetError):
        return opened.recv(1) == b""
    return True
