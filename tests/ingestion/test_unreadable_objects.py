"""Objects in S3 that are listed and may not be read: some of a source, and all of it."""

import pytest

import mlproject
from mlproject.ingestion import new_images, reconciliation, source_listing
from tests.conftest import photo
from tests.support import s3_servers
from tests.support.s3_servers import put, refusal

pytestmark = pytest.mark.spark


def test_an_object_that_may_not_be_read_is_counted_and_stays_pending(
    workers, lake, server, bucket, somebody, monkeypatch
):
    s3_servers.let_in(server, "inf")
    put(server, bucket, **{f"red/{n}.jpg": photo((200, 30, 30), n) for n in range(2)})
    put(server, bucket, **{"secret.jpg": photo((1, 2, 3))})
    s3_servers.let_in(server, "0")
    for name, value in somebody.items():
        monkeypatch.setenv(name, value)
        workers.sparkContext.environment[name] = value
    source = f"s3://{bucket}?endpoint_override={server}"
    for rows in (2, 0):
        done = new_images.ingest_pending(workers, lake, source_listing.listing(source))
        assert (rows, {"unreadable": 1}) == (done.rows, done.left)
    s3_servers.let_in(server, "inf")
    assert 1 == new_images.ingest_pending(workers, lake, source_listing.listing(source)).rows


def test_a_source_of_which_nothing_can_be_read_is_an_error_with_the_reason(
    workers, lake, store, server, bucket, somebody, monkeypatch
):
    s3_servers.let_in(server, "inf")
    put(server, bucket, **{f"{number}/secret.jpg": photo((1, 2, 3), number) for number in range(2)})
    s3_servers.let_in(server, "0")
    for name, value in somebody.items():
        monkeypatch.setenv(name, value)
        workers.sparkContext.environment[name] = value
    source = f"s3://{bucket}?endpoint_override={server}"
    told = refusal(lambda: mlproject.ingest(source, lake=lake, settle=0))
    reason = f"None of 2 image files can be read, for example s3://{bucket}/0/secret.jpg: "
    assert f"{reason}Access is refused" in told
    s3_servers.let_in(server, "inf")
    # As where the driver alone may read.
    told = str(reconciliation.unreadable(source_listing.listing(source)))
    assert f"{reason}this process can read it. Give the executors" in told
    assert 2 == mlproject.ingest(source, lake=lake).ingested.rows
