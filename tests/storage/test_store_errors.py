"""What an error of a client is about: the texts of pyarrow, delta-rs, obstore and botocore."""

import pytest

from mlproject.storage import object_storage, store_errors

RUST = "Generic S3 error: Error performing GET http://s3/photos?list-type=2 in 2.1s - {}"
ARROW = "When listing objects in bucket 'photos': AWS Error {} during ListObjectsV2 operation: no"
AWS = "An error occurred ({}) when calling the ListObjectsV2 operation: no"


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        (RUST.format("HTTP error: error sending request"), "network"),
        (RUST.format("HTTP error: error sending request: operation timed out"), "network"),
        (
            RUST.format("(Connect): invalid peer certificate: UnknownIssuer"),
            "certificate",
        ),
        (RUST.format("Server returned error response: 503 Service Unavailable"), "busy"),
        (RUST.format("Server returned non-2xx status code: 403 Forbidden: "), "access"),
        (RUST.format("404 Not Found: <Error><Code>NoSuchBucket</Code></Error>"), "bucket"),
        (RUST.format("301 Moved Permanently: "), "region"),
        (ARROW.format("NETWORK_CONNECTION"), "network"),
        (ARROW.format("SLOW_DOWN"), "busy"),
        (ARROW.format("UNKNOWN (HTTP status 500)"), "busy"),
        (ARROW.format("UNKNOWN (HTTP status 301)"), "region"),
        (ARROW.format("ACCESS_DENIED"), "access"),
        (ARROW.format("UNKNOWN (HTTP status 403)"), "access"),
        (ARROW.format("NO_SUCH_BUCKET"), "bucket"),
        ("When listing: curlCode: 60, SSL peer certificate was not OK", "certificate"),
        (AWS.format("SlowDown") + " (HTTP status 503)", "busy"),
        (AWS.format("429") + " (HTTP status 429)", "busy"),
        (AWS.format("XMinioServerNotInitialized") + " (HTTP status 503)", "busy"),
        (AWS.format("AccessDenied") + " (HTTP status 403)", "access"),
        (AWS.format("AllAccessDisabled") + " (HTTP status 403)", "access"),
        (AWS.format("InvalidAccessKeyId") + " (HTTP status 403)", "key"),
        (AWS.format("ExpiredToken") + " (HTTP status 400)", "key"),
        ("An error occurred (AccessDenied) when calling the AssumeRole operation: no", "key"),
        (AWS.format("NoSuchBucket") + " (HTTP status 404)", "bucket"),
        (AWS.format("PermanentRedirect") + " (HTTP status 301)", "region"),
        ('Could not connect to the endpoint URL: "http://s3/b?prefix=certificates"', "network"),
        ("SSL validation failed for https://s3/b [SSL: WRONG_VERSION_NUMBER]", "network"),
        ('Could not connect to the endpoint URL: "http://s3/photos?list-type=2"', "network"),
        ('Read timeout on endpoint URL: "http://s3/photos?list-type=2"', "network"),
        ("Connection was closed before we received a valid response from endpoint URL", "network"),
        ("SSL validation failed for https://s3/photos certificate verify failed", "certificate"),
        ("something else", "other"),
    ],
)
def test_the_kind_of_an_error_is_known_by_its_text(text, kind):
    error = OSError(text)
    assert kind == store_errors.kind(error)
    assert (kind in ("network", "busy")) == object_storage.is_broken(error)


def test_the_message_has_what_the_server_said_in_one_line_without_the_request():
    said = "<Error><Code>AccessDenied</Code>\n<Message>No, \nnot you</Message></Error>"
    line = store_errors.advice(OSError(f"{RUST.format(said)}\n\nDebug source:\nGeneric {{"))
    assert line.startswith("Access is refused. Set AWS_ACCESS_KEY_ID")
    assert line.endswith("(AccessDenied: No, not you)")


@pytest.mark.parametrize(
    ("store", "name", "advice"),
    [
        ("S3", "S3", "AWS_ACCESS_KEY_ID"),
        ("GCS", "Google Cloud Storage", "GOOGLE_APPLICATION_CREDENTIALS"),
        ("MicrosoftAzure", "Azure", "AZURE_STORAGE_ACCOUNT_KEY"),
    ],
)
def test_the_advice_and_the_name_are_those_of_the_store(store, name, advice):
    text = RUST.replace("S3", store)
    refused, away = (OSError(text.format(said)) for said in ("403 Forbidden: ", "dns error"))
    assert advice in store_errors.advice(refused)
    assert ("", name) == (object_storage.outage(refused), object_storage.outage(away))


@pytest.mark.parametrize("uri", ["s3://BUCKET", "gs://BUCKET", "abfss://CONTAINER"])
def test_an_error_without_the_name_of_a_store_is_one_of_the_source(uri):
    assert f"Name one: {uri}" in object_storage.advice(uri.lower(), FileNotFoundError("none"))
