"""Fixtures: a server of S3, and the environment that finds it."""

import pytest

from tests.support import s3_servers


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """The URL of moto, or of the server that TEST_S3_SERVER names."""
    with s3_servers.chosen(tmp_path_factory.mktemp("s3")) as (_, url):
        yield url


@pytest.fixture
def empty_bucket(server, monkeypatch, request):
    """The name of a new bucket; the environment of this process and its children finds it."""
    for name, word in s3_servers.KEYS.items():
        monkeypatch.setenv(name, word)
    monkeypatch.setenv("AWS_ENDPOINT_URL", server)
    name = f"b{abs(hash(request.node.name))}"
    s3_servers.client(server).create_bucket(Bucket=name)
    return name
