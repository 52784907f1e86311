"""Fixtures: an environment in which nobody has set anything for AWS, and a server."""

import os

import pytest

from tests.support import s3_servers


@pytest.fixture
def nobody(monkeypatch, tmp_path):
    """An environment without any settings of AWS, and without certificates of one's own."""
    for name in [name for name in os.environ if name.startswith(("AWS_", "SSL_CERT"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))


@pytest.fixture
def server(tmp_path):
    """The URL of a server with an empty bucket `photos`."""
    with s3_servers.running(tmp_path / "moto.txt") as (_, url):
        s3_servers.client(url).create_bucket(Bucket="photos")
        yield url
