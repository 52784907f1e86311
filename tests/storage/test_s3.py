"""How folders in S3 are named; no server is asked."""

import pytest

from mlproject.storage import object_storage, s3
from tests.support.s3_servers import refusal


def test_a_source_is_written_as_in_the_keys_and_its_settings_are_not_part_of_it():
    found = s3.folder("s3://photos/a%41 b+c#/?endpoint_override=localhost:9&scheme=http&region=eu")
    assert s3.Folder("photos/a%41 b+c#", "http://localhost:9", "eu") == found
    assert found == s3.folder(found.uri())


def test_the_environment_names_a_server_as_for_the_tools_of_aws(monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://all:1")
    monkeypatch.setenv("AWS_REGION", "eu-north-1")
    assert s3.Folder("photos", "http://all:1", "eu-north-1") == s3.folder("s3://photos")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://s3:2")
    assert "http://s3:2" == s3.folder("s3://photos").endpoint
    assert "http://own:3" == s3.folder("s3://photos?endpoint_override=http://own:3").endpoint


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("s3://", "names no bucket"),
        ("s3://photos/../x", "names no bucket"),
        ("s3://photos?endpoint=x", "unknown settings: endpoint "),
        ("s3://photos?endpoint_override=ftp://h&region=x", "Write http://"),
    ],
)
def test_an_invalid_source_is_refused(source, message):
    assert message in refusal(object_storage.open_source, source)


@pytest.mark.parametrize(
    "source", ["s3://me:hunter2@photos/x", "s3://x?endpoint_override=http://me:hunter2@h"]
)
def test_credentials_in_a_source_are_refused_and_not_repeated(source):
    message = refusal(object_storage.open_source, source)
    assert "AWS_ACCESS_KEY_ID" in message
    assert "hunter2" not in message
