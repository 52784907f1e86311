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


def test_a_key_that_is_refused_ends_a_listing_and_a_folder_that_is_refused_does_not(server):
    put(server, "photos", **{"there/a.jpg": b"x", "secret/b.jpg": b"x"})
    for answer, ends in (
        (xml("403 Forbidden", error("AllAccessDisabled")), False),
        (xml("400 Bad Request", error("ExpiredToken")), True),
        (xml("403 Forbidden", error("SignatureDoesNotMatch")), True),
    ):
        with Proxy(server, "prefix=secret", 99, lambda _, given=answer: given).running() as proxy:
            source = f"s3://photos?endpoint_override={proxy.url}"
            if ends:
                assert "Access is refused" in refusal(source_listing.listing, source)
            else:
                listed = source_listing.listing(source)
                assert (["there/a.jpg"], {"unreadable": 1}) == (names(listed), listed.left_counts())


def test_a_first_page_without_keys_is_no_end_and_a_page_cut_off_is_no_listing(server):
    first = "<IsTruncated>true</IsTruncated>"
    more = f"{first}<NextContinuationToken>in/</NextContinuationToken>"
    key = "<Contents><Key>in/a.jpg</Key><Size>1</Size></Contents>"  # its time is not listed
    for pages, listed in (([more, key], True), ([first], False)):
        answers = iter(
            [xml("200 OK", f"<ListBucketResult>{page}</ListBucketResult>") for page in pages]
        )
        with Proxy(
            server, "list-type=2", 2, lambda _, given=answers: next(given)
        ).running() as proxy:
            source = f"s3://photos/in?endpoint_override={proxy.url}"
            if listed:
                assert ["a.jpg"] == names(source_listing.listing(source))
            else:
                assert "ends in the middle" in refusal(source_listing.listing, source)


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
