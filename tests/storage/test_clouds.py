"""Sources in Google Cloud Storage and Azure, on servers that stand in for them."""

import re

import pytest

from mlproject.errors import UserError
from mlproject.images import image_files
from mlproject.ingestion import source_cleaning, source_listing
from mlproject.integrations import spark_settings
from mlproject.storage import buckets, object_storage
from tests.conftest import output_of, photo, start_command
from tests.support import clouds as servers
from tests.support.cloud_accounts import KINDS
from tests.support.lakes import frame
from tests.support.s3_servers import names, refusal
from tests.support.versions import register_colours


@pytest.fixture(params=KINDS)
def cloud(request, tmp_path, monkeypatch):
    with getattr(servers, request.param)(tmp_path) as made:
        for name, word in made.environment.items():
            monkeypatch.setenv(name, word)
        yield made


ODD = ["a b.jpg", "%41.jpg", "#&=.jpg", "a+b.jpg", "😀.jpg", "gr\u00fc.jpg", "[1].jpg", "in/x.jpg"]


def test_keys_of_any_characters_are_listed_and_read_as_they_are(cloud):
    cloud.put(**{f"odd %41+/{key}": key.encode() for key in ODD}, other=b"x")
    listed = source_listing.listing(f"{cloud.bucket}/odd %41+/", "*")
    assert f"{cloud.bucket}/odd %41+" == listed.root == listed.source
    assert sorted(ODD) == sorted(names(listed))
    assert {"odd %41+", "in", None} >= set(listed.files["label"].to_pylist())
    read = object_storage.reader(listed.source)
    for row in listed.files.to_pylist():
        key = row["path"].removeprefix(f"{listed.root}/").encode()
        assert (key, len(key)) == (b"".join(read(row["path"])), row["size_bytes"])
        assert key == b"".join(object_storage.blocks(row["path"]))
        with object_storage.open_file(listed.source, row["path"]) as file:
            file.seek(2)
            assert key[2:] == bytes(file.read())


def test_a_missing_object_is_seen_and_a_missing_folder_is_one_line(cloud):
    cloud.put(**{"in/a.jpg": b"x"})
    paths = [f"{cloud.bucket}/in/{name}.jpg" for name in "ab"]
    assert [False, True] == object_storage.missing_files(cloud.bucket, paths)
    with pytest.raises(FileNotFoundError):
        list(object_storage.blocks(paths[1]))
    message = refusal(source_listing.listing, f"{cloud.bucket}/nowhere")
    assert "The bucket has no such folder. Name one: " in message
    assert cloud.bucket.partition("://")[0] in message.partition("Name one")[2]
    assert [] == source_listing.listing(cloud.bucket, ".png").files["path"].to_pylist()


def test_a_server_that_is_away_is_one_line_that_names_its_setting(cloud, monkeypatch):
    for name in ("GOOGLE_BASE_URL", "AZURITE_BLOB_STORAGE_URL"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    message = refusal(source_listing.listing, cloud.bucket)
    assert "cannot be reached" in message
    assert ("GOOGLE_BASE_URL" if "gs:" in cloud.bucket else "AZURE_STORAGE_ENDPOINT") in message


def test_the_header_of_a_file_that_is_too_large_is_read(cloud, monkeypatch):
    cloud.put(**{"a.jpg": photo((9, 9, 9), size=(80, 60)), "none.jpg": b"x" * 5_000})
    listed = source_listing.listing(cloud.bucket)
    monkeypatch.setattr(image_files, "HELD_BYTES", 100)
    read, reading = object_storage.reader(listed.source), image_files.Reading(listed.source)
    rows = [image_files.read_file(read, one, reading)[0] for one in listed.files.to_pylist()]
    assert [(80, 60), (None, None)] == [(row["width"], row["height"]) for row in rows]


@pytest.mark.spark
@pytest.mark.slow
def test_images_are_ingested_as_references_and_scored(cloud, store, tmp_path):
    cloud.put(**{f"red/{number}.jpg": photo((200, 30, 30), number) for number in range(3)})
    version = register_colours("in-a-cloud")
    ingest = ("ingest", "--source", cloud.bucket, "--settle", "0", "--content", "reference")
    assert "Ingested 3 of 3" in output_of(start_command(*ingest, cwd=tmp_path))
    assert "3 images scored" in output_of(
        start_command("score", "--model", version.uri, cwd=tmp_path)
    )
    images, found = (frame(str(tmp_path / "lake"), name) for name in ("images", "predictions"))
    assert {f"{cloud.bucket}/red/{number}.jpg" for number in range(3)} == set(images.path)
    assert images.content.isna().all()
    assert (3, {"red"}, 0) == (len(found), set(found.label), found.error.notna().sum())


@pytest.mark.parametrize(
    "source",
    [
        *("gs://", "gs://user@photos/in", "gs://photos/in?key=secret", "abfss://photos/in"),
        *("abfss://photos:secret@account.dfs.core.windows.net", "abfss://photos@other.net/in"),
    ],
)
def test_another_form_of_a_uri_is_refused(source):
    message = refusal(object_storage.open_source, source)
    assert "Write gs://BUCKET/FOLDER, or abfss://" in message
    assert "secret" not in message


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("gs://b/in/", ("b/in", "gs://")),
        ("abfss://c@a.dfs.core.windows.net", ("c@a.dfs.core.windows.net", "abfss://")),
        ("abfs://c@a.dfs.core.windows.net/in", ("c@a.dfs.core.windows.net/in", "abfss://")),
    ],
)
def test_a_uri_has_one_spelling(source, expected):
    assert expected == object_storage.open_source(source)
    assert f"{expected[1]}{expected[0]}" == object_storage.with_server(source)


@pytest.mark.parametrize("how", ["move", "delete"])
def test_a_source_in_a_cloud_is_not_cleaned(how):
    with pytest.raises(UserError, match="local folder or in S3"):
        source_cleaning.check("gs://photos", "lake", how, "elsewhere")


KEYS = {
    "AZURE_STORAGE_ACCOUNT_KEY": "account.key",
    "AZURE_STORAGE_SAS_TOKEN": "sas.fixed.token",
    "AZURE_CLIENT_SECRET": "account.oauth2.client.secret",
    "AZURE_FEDERATED_TOKEN_FILE": "account.oauth2.token.file",
}


@pytest.mark.parametrize("given", [*KEYS, None])
def test_spark_gets_the_key_that_the_environment_names(given, monkeypatch):
    for name in KEYS:
        monkeypatch.delenv(name, raising=False)
    if given:
        monkeypatch.setenv(given, "the key")
    lake = "abfss://photos@account.dfs.core.windows.net/lake"
    options = object_storage.spark_options(lake)
    named = [name for name, word in options.items() if word == "the key"]
    account = "account.dfs.core.windows.net"
    assert named == ([f"fs.azure.{KEYS[given]}.{account}"] if given else [])
    kinds = dict(zip(KEYS, ("SharedKey", "SAS", "ClientCreds", "WorkloadIdentity"), strict=True))
    assert any(kinds.get(given, "Msi") in word for word in options.values())


def test_spark_hides_the_key():
    shown = re.compile(spark_settings.QUIET["spark.redaction.regex"])
    for name in ("fs.azure.account.key.a", "fs.azure.sas.fixed.token.a", "oauth2.client.secret"):
        assert shown.search(name)


def test_a_lake_needs_one_key(monkeypatch):
    azure, google = "abfss://photos@account.dfs.core.windows.net/lake", "gs://photos/lake"
    for name in KEYS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AZURE_STORAGE_SAS_TOKEN", "secret")
    object_storage.delta_options(azure)
    monkeypatch.setenv("AZURE_FEDERATED_TOKEN_FILE", "/token")
    message = refusal(object_storage.delta_options, azure)
    assert "AZURE_STORAGE_SAS_TOKEN and AZURE_FEDERATED_TOKEN_FILE are set" in message
    assert "secret" not in message
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", "secret")  # which all clients prefer
    object_storage.delta_options(azure)
    for name, lake in (("AZURE_SKIP_SIGNATURE", azure), ("GOOGLE_SKIP_SIGNATURE", google)):
        monkeypatch.setenv(name, "true")
        assert f"Unset {name}" in refusal(object_storage.delta_options, lake)


def test_a_key_that_cannot_be_read_is_an_error_of_the_file_system(monkeypatch, tmp_path):
    (tmp_path / "key.json").write_text("no key")
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "key.json"))
    with pytest.raises(OSError, match="GCS error"):
        list(object_storage.blocks("gs://photos/a.jpg"))
    with pytest.raises(OSError, match="GCS error"):
        object_storage.open_path("gs://photos/lake")


def test_the_first_error_of_an_upload_is_told(tmp_path):
    (tmp_path / "folder").write_bytes(b"a file")
    from obstore.store import LocalStore

    files = buckets.filesystem(LocalStore(str(tmp_path)), "b")
    refused = pytest.raises(OSError, match=r"Unable to|Not a directory")
    with refused, files.open_output_stream("b/folder/a") as stream:
        for _ in range(3):
            stream.write(b"x" * 11 * 1024**2)
