"""Fixtures: a server of S3, and a bucket there."""

import pytest

from tests.support import s3_servers


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """The URL of moto, or of the server that TEST_S3_SERVER names."""
    with s3_servers.chosen(tmp_path_factory.mktemp("s3")) as (_, url):
        yield url


@pytest.fixture
def empty_bucket(server, request):
    """The name of a new bucket; the environment of this process and its children finds it."""
    with s3_servers.new_bucket(server, f"b{abs(hash(request.node.name))}") as name:
        yield name
