"""A server of S3's protocol, and who may read there."""

import os

import pytest

from tests.support import s3_servers
from tests.support.s3_servers import KEYS, client


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """The URL of a server that lets everybody in."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            patch.delenv(name)
        for name, value in KEYS.items():
            patch.setenv(name, value)
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        with s3_servers.running(tmp_path_factory.mktemp("moto") / "log.txt") as (_, url):
            yield url


@pytest.fixture
def bucket(server, request):
    """An empty bucket, by name."""
    name = f"b{abs(hash(request.node.name))}"
    client(server).create_bucket(Bucket=name)
    return name


@pytest.fixture
def workers(spark, server):
    """A Spark session whose workers have the credentials; they began before the server did."""
    environment = spark.sparkContext.environment
    before = dict(environment)
    environment.update(KEYS)
    yield spark
    environment.clear()
    environment.update(before)


@pytest.fixture
def somebody(server):
    with s3_servers.user_without_secrets(server) as credentials:
        yield credentials
