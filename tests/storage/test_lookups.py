"""Listings by AWS's own client: answers of a server that are odd, or refuse."""

import re

import pytest

from mlproject.ingestion import source_listing
from tests.support.s3_servers import KEYS, Proxy, names, put, refusal


@pytest.fixture(autouse=True)
def keys(nobody, monkeypatch):
    for name, word in KEYS.items():
        monkeypatch.setenv(name, word)


def xml(status, text):
    """An answer of a server."""
    body = f'<?xml version="1.0"?>{text}'.encode()
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/xml\r\nConnection: close\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def error(code):
    return f"<Error><Code>{code}</Code><Message>no</Message></Error>"


@pytest.fixture
def secret(server):
    """A bucket with a folder that a proxy refuses; a function that lists it, given the answer."""
    put(server, "photos", **{"there/a.jpg": b"x", "secret/b.jpg": b"x"})

    def listing(answer):
        with Proxy(server, "prefix=secret", 99, lambda _: answer).running() as proxy:
            return source_listing.listing(f"s3://photos?endpoint_override={proxy.url}")

    return listing


def test_a_folder_that_is_refused_does_not_end_a_listing(secret):
    listed = secret(xml("403 Forbidden", error("AllAccessDisabled")))
    assert (["there/a.jpg"], {"unreadable": 1}) == (names(listed), listed.left_counts())


@pytest.mark.parametrize(
    ("status", "code"),
    [("400 Bad Request", "ExpiredToken"), ("403 Forbidden", "SignatureDoesNotMatch")],
)
def test_a_key_that_is_refused_ends_a_listing(secret, status, code):
    assert "Access is refused" in refusal(secret, xml(status, error(code)))


@pytest.fixture
def answering(server):
    """A function that lists a folder whose pages are given."""

    def listing(*pages):
        answers = iter(
            xml("200 OK", f"<ListBucketResult>{page}</ListBucketResult>") for page in pages
        )
        with Proxy(server, "list-type=2", 2, lambda _: next(answers)).running() as proxy:
            return source_listing.listing(f"s3://photos/in?endpoint_override={proxy.url}")

    return listing


TRUNCATED = "<IsTruncated>true</IsTruncated>"


def test_a_first_page_without_keys_is_no_end(answering):
    more = f"{TRUNCATED}<NextContinuationToken>in/</NextContinuationToken>"
    key = "<Contents><Key>in/a.jpg</Key><Size>1</Size></Contents>"  # its time is not listed
    assert ["a.jpg"] == names(answering(more, key))


def test_a_page_that_is_cut_off_is_no_listing(answering):
    assert "ends in the middle" in refusal(answering, TRUNCATED)


def test_a_listing_with_fractions_of_a_second_has_the_times_of_one_without(server):
    put(server, "photos", **{"a.jpg": b"x"})

    def with_fraction(answer):
        body = answer.partition(b"\r\n\r\n")[2].decode()
        return xml("200 OK", re.sub(r"(:\d\d)(\.\d+)?Z", r"\1.123Z", body.partition("?>")[2]))

    with Proxy(server, "list-type=2", 1, with_fraction).running() as proxy:
        there = source_listing.listing(f"s3://photos?endpoint_override={proxy.url}")
        assert 1 == proxy.changed
    plain = source_listing.listing(f"s3://photos?endpoint_override={server}")
    assert plain.files == there.files


def test_a_server_whose_name_cannot_be_used_is_one_line(server):
    message = refusal(source_listing.listing, "s3://b?endpoint_override=http://a_name:9000")
    assert "'http://a_name:9000' cannot be used" in message
