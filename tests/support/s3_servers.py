"""A server of S3's protocol (moto), and one before it that spoils answers."""

import contextlib
import http.server
import json
import os
import re
import socket
import socketserver
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import cast
from urllib.parse import urlsplit

import boto3
import pytest
import requests

from mlproject.errors import UserError
from tests.support.local_servers import serving, url_of
from tests.support.mlflow_servers import free_port

KEYS = {"AWS_ACCESS_KEY_ID": "anybody", "AWS_SECRET_ACCESS_KEY": "secret"}
MOTO = (sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", "0")


@contextlib.contextmanager
def running(log, command=MOTO, **environment):
    """A server: its process and its URL. Moto, on a free port, unless another is named."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            env={**os.environ, **environment},
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        until = time.monotonic() + 120
        while not (found := re.search(r"https?://127\.0\.0\.1:\d+", log.read_text())):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < until, log.read_text()
            time.sleep(0.1)
        yield process, found[0]
    finally:
        process.kill()
        process.wait()


@contextlib.contextmanager
def chosen(folder):
    """The server that TEST_S3_SERVER names: the path of versitygw, else moto. Its process and URL.

    Both are real servers of the protocol, independent of each other and of what is tested.
    """
    program = os.environ.get("TEST_S3_SERVER")
    if not program:
        with running(folder / "moto.txt") as started:
            yield started
        return
    (folder / "buckets").mkdir()
    place = f"127.0.0.1:{free_port()}"
    keys = dict(zip(("ROOT_ACCESS_KEY", "ROOT_SECRET_KEY"), KEYS.values(), strict=True))
    command = (program, "--port", place, "--keep-alive", "posix", str(folder / "buckets"))
    with running(folder / "versitygw.txt", command, **keys) as started:
        yield started


def client(url, service="s3"):
    """AWS's own client, which knows nothing of what is tested."""
    keys = dict(zip(("aws_access_key_id", "aws_secret_access_key"), KEYS.values(), strict=True))
    return boto3.client(service, endpoint_url=url, region_name="us-east-1", **keys)


@contextlib.contextmanager
def new_bucket(server, name):
    """An empty bucket; in the block, the environment of this process and its children finds it."""
    with pytest.MonkeyPatch.context() as patch:
        for key, word in KEYS.items():
            patch.setenv(key, word)
        patch.setenv("AWS_ENDPOINT_URL", server)
        client(server).create_bucket(Bucket=name)
        yield name


def put(server, bucket, **contents):
    """Objects, by key."""
    to = client(server)
    with ThreadPoolExecutor(8) as pool:
        list(
            pool.map(
                lambda key: to.put_object(Bucket=bucket, Key=key, Body=contents[key]), contents
            )
        )


def let_in(server, number):
    """How many more requests moto takes from anybody before it looks at credentials."""
    requests.post(f"{server}/moto-api/reset-auth", data=number, timeout=60).raise_for_status()


def names(listed):
    return [path.removeprefix(f"{listed.root}/") for path in listed.files["path"].to_pylist()]


def refusal(what, *arguments):
    """The one line that somebody gets to see."""
    with pytest.raises(UserError) as raised:
        what(*arguments)
    assert "\n" not in str(raised.value)
    return str(raised.value)


@contextlib.contextmanager
def user_without_secrets(server):
    """Credentials of a user who may do all but read `secret.jpg`; nobody else is let in."""
    iam, name = client(server, "iam"), {"UserName": "somebody"}
    statements = [
        {"Effect": "Allow", "Action": "s3:*", "Resource": "*"},
        {"Effect": "Deny", "Action": "s3:*", "Resource": "arn:aws:s3:::*/secret.jpg"},
    ]
    policy = json.dumps({"Version": "2012-10-17", "Statement": statements})
    iam.create_user(**name)
    iam.put_user_policy(**name, PolicyName="most", PolicyDocument=policy)
    key = iam.create_access_key(**name)["AccessKey"]
    let_in(server, "0")
    yield dict(zip(KEYS, (key["AccessKeyId"], key["SecretAccessKey"]), strict=True))
    let_in(server, "inf")
    iam.delete_access_key(**name, AccessKeyId=key["AccessKeyId"])
    iam.delete_user_policy(**name, PolicyName="most")
    iam.delete_user(**name)


def half(answer):
    head, body = answer.split(b"\r\n\r\n", maxsplit=1)
    return head + b"\r\n\r\n" + body[: len(body) // 2]


def refused(answer):
    return b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class Proxy(socketserver.ThreadingTCPServer):
    """Passes requests without a body on, and changes some answers: ends them in the middle."""

    daemon_threads = True

    def __init__(self, server: str, word: str, times: int, change=half, method="GET"):
        super().__init__(("127.0.0.1", 0), _Request)
        place = urlsplit(server)
        self.behind = (str(place.hostname), int(place.port or 80))
        self.word = word.encode()
        """What is in the first line of a request whose answer is changed."""
        self.times = times
        """How many answers are changed."""
        self.changed = 0
        self.requests: list[bytes] = []
        """First lines and headers of all requests."""
        self.change = change
        self.method = method.encode()

    @property
    def url(self):
        return url_of(self)

    @contextlib.contextmanager
    def running(self):
        with serving(self):
            yield self


class _Request(socketserver.BaseRequestHandler):
    def handle(self):
        proxy = cast(Proxy, self.server)
        asked = b""
        while b"\r\n\r\n" not in asked:
            block = self.request.recv(65536)
            if not block:
                return
            asked += block
        proxy.requests.append(asked)
        first, rest = asked.split(b"\r\n", maxsplit=1)
        with socket.create_connection(proxy.behind) as behind:
            behind.sendall(first + b"\r\nConnection: close\r\n" + rest)
            answer = b""
            while block := behind.recv(65536):
                answer += block
        if first.startswith(proxy.method) and proxy.word in first and proxy.changed < proxy.times:
            proxy.changed += 1
            answer = proxy.change(answer)
        self.request.sendall(answer)


class EmptyBucket(http.server.ThreadingHTTPServer):
    """Says of one bucket that it is there, and of all else that it is not."""

    daemon_threads = True

    def __init__(self, bucket: str):
        super().__init__(("127.0.0.1", 0), _Absence)
        self.bucket = bucket


class _Absence(http.server.BaseHTTPRequestHandler):
    def do_HEAD(self):
        is_there = self.path.strip("/") == cast(EmptyBucket, self.server).bucket
        self.send_response(200 if is_there else 404)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_GET = do_HEAD  # noqa: N815 - the library's name

    def log_message(self, format, *args):  # noqa: A002 - the library's name
        pass
