"""Every client of S3 (pyarrow, delta-rs, obstore, Spark) finds the same server and credentials."""

import contextlib
from functools import partial

import boto3
import pytest

import mlproject
from mlproject.errors import MachineError, UserError
from mlproject.ingestion import label_tables, source_listing
from mlproject.lake import snapshots
from mlproject.storage import object_storage
from tests.conftest import photos
from tests.support import certificates, s3_proxy, s3_servers
from tests.support.fresh_processes import run
from tests.support.s3_clients import USES_ALL
from tests.support.spark_clusters import cluster, with_defaults

pytestmark = pytest.mark.usefixtures("nobody")


def set_all(monkeypatch, **environment):
    for name, word in environment.items():
        monkeypatch.setenv(name, word)


def message_of(lake):
    with pytest.raises((UserError, MachineError)) as raised:
        snapshots.newest(lake, "images")
    assert "\n" not in str(raised.value)
    return type(raised.value), str(raised.value)


@pytest.mark.spark
@pytest.mark.parametrize("where", ["local", "cluster"])
def test_a_certificate_of_ones_own_authority_is_trusted_when_it_is_named(
    monkeypatch, tmp_path, where
):
    authority, certificate, key = certificates.write(tmp_path)
    command = (*s3_servers.MOTO, "-c", str(certificate), "-k", str(key))
    source = photos(tmp_path / "source", 3)
    with s3_servers.running(tmp_path / "moto.txt", command) as (_, place):
        url = place.replace("http:", "https:")
        keys = dict(zip(("aws_access_key_id", "aws_secret_access_key"), "ab", strict=True))
        client = boto3.client(
            "s3", endpoint_url=url, region_name="us-east-1", verify=str(authority), **keys
        )
        client.create_bucket(Bucket="photos")
        set_all(monkeypatch, **s3_servers.KEYS, AWS_ENDPOINT_URL=url)
        kind, message = message_of("s3://photos/lake")
        assert (UserError, True) == (kind, "certificate is not trusted" in message)
        assert "AWS_CA_BUNDLE" in message
        monkeypatch.setenv("AWS_CA_BUNDLE", str(authority))
        with contextlib.ExitStack() as stack:
            given = {}
            if where == "cluster":
                (tmp_path / "cluster").mkdir()
                running = stack.enter_context(cluster(tmp_path / "cluster", [["0"]], cores=1))
                settings = with_defaults(tmp_path / "conf", {"spark.executor.memory": "512m"})
                given = {"SPARK_MASTER": running.url, **settings}
            done = run(USES_ALL, tmp_path, "s3://photos/lake", str(source), **given)
    assert (0, "3 PAR1\n") == (done.returncode, done.stdout), done.stderr


@pytest.mark.spark
def test_a_profile_is_enough(server, monkeypatch, tmp_path):
    source = photos(tmp_path / "source", 3)
    with s3_servers.user_without_secrets(server) as keys:
        lines = [f"{name.lower()} = {word}" for name, word in keys.items()]
        (tmp_path / "keys").write_text("\n".join(["[scorer]", *lines]))
        server_of = f"[profile scorer]\nendpoint_url = {server}\nregion = us-east-1\n"
        (tmp_path / "config").write_text(server_of)
        profile = {
            "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "keys"),
            "AWS_CONFIG_FILE": str(tmp_path / "config"),
            "AWS_PROFILE": "scorer",
        }
        done = run(USES_ALL, tmp_path, "s3://photos/lake", str(source), **profile)
    assert (0, "3 PAR1\n") == (done.returncode, done.stdout), done.stderr


def test_what_is_wrong_is_said_in_one_line_with_what_to_do(server, monkeypatch):
    lake = "s3://photos/lake"
    monkeypatch.setenv("AWS_ENDPOINT_URL", server)
    kind, message = message_of(lake)
    assert (UserError, True) == (kind, "No credentials for S3 were found" in message)
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    assert "profile (nobody) could not be found" in message_of(lake)[1]
    monkeypatch.delenv("AWS_PROFILE")
    set_all(monkeypatch, **s3_servers.KEYS)
    assert snapshots.newest(lake, "images") is None
    assert "no such bucket" in message_of("s3://elsewhere/lake")[1]
    s3_servers.let_in(server, "0")
    assert "Access is refused" in message_of(lake)[1]
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    kind, message = message_of(lake)
    assert (MachineError, True) == (kind, "server cannot be reached" in message)


def test_requests_are_not_signed_and_are_paid_for_where_the_source_says_so(server, monkeypatch):
    client = s3_servers.client(server)
    client.put_object(Bucket="photos", Key="a.jpg", Body=b"public", ACL="public-read")
    source = f"s3://photos?endpoint_override={server}&anonymous=true&requester_pays=true"
    folder = object_storage.s3.folder(source)
    assert (True, True) == (folder.anonymous, folder.requester_pays)
    assert folder == object_storage.s3.folder(folder.uri())
    assert b"public" == b"".join(object_storage.reader(source)("s3://photos/a.jpg"))
    assert 1 == len(object_storage.filesystem(source)[1].get_file_info(["photos/a.jpg"]))
    options = object_storage.s3.delta_options(folder)
    assert {
        "AWS_SKIP_SIGNATURE": "true",
        "AWS_REQUEST_PAYER": "requester",
    }.items() <= options.items()
    assert not [name for name in options if "KEY" in name]


def test_every_request_for_an_object_or_a_listing_says_who_pays(server, monkeypatch):
    set_all(monkeypatch, **s3_servers.KEYS)
    client = s3_servers.client(server)
    client.put_object(Bucket="photos", Key="paid/a.jpg", Body=b"bytes")
    with s3_servers.Proxy(server, "", 0).running() as proxy:
        source = f"s3://photos/paid?endpoint_override={proxy.url}&requester_pays=true"
        listed = source_listing.listing(source)
        [path] = listed.files["path"].to_pylist()
        assert b"bytes" == b"".join(object_storage.reader(listed.source)(path))
        gone = [path, "s3://photos/paid/gone.jpg"]
        assert [False, True] == object_storage.missing_files(listed.source, gone)
    said = [request.lower() for request in proxy.requests if b" /photos HTTP" not in request]
    assert 4 == len(said), proxy.requests
    assert all(b"\r\nx-amz-request-payer: requester\r\n" in request for request in said)


@pytest.mark.parametrize("setting", ["anonymous=true", "endpoint_override=http://127.0.0.1:9"])
def test_rows_that_are_read_by_their_paths_take_no_settings_of_the_source(
    server, store, monkeypatch, tmp_path, setting
):
    set_all(monkeypatch, **s3_servers.KEYS, AWS_ENDPOINT_URL=server)
    s3_servers.put(server, "photos", **{"in/a.jpg": b"x"})
    ingest = partial(mlproject.ingest, lake=str(tmp_path / "lake"), content="reference", plan=True)
    message = s3_servers.refusal(lambda: ingest(source=f"s3://photos/in?{setting}"))
    assert "AWS_SKIP_SIGNATURE" in message
    monkeypatch.delenv("AWS_ENDPOINT_URL")  # Amazon's, which is not asked for the region
    there = "s3://photos/in?endpoint_override=http://127.0.0.1:9"
    assert "AWS_SKIP_SIGNATURE" in s3_servers.refusal(lambda: ingest(source=there))
    monkeypatch.setenv("AWS_ENDPOINT_URL", server)
    same = f"s3://photos/in?endpoint_override={server}"
    assert 1 == ingest(source=same, settle=0).planned.new


def test_reading_a_table_of_labels_says_who_pays(server, monkeypatch):
    set_all(monkeypatch, **s3_servers.KEYS, AWS_REQUEST_PAYER="requester")
    content = b"path,label\na.jpg,red\n"
    s3_servers.client(server).put_object(Bucket="photos", Key="labels.csv", Body=content)
    nothing = source_listing.LISTED.empty_table(), source_listing.LEFT.empty_table()
    listed = source_listing.Listing("s3://photos", *nothing, "s3://photos")
    with s3_servers.Proxy(server, "", 0).running() as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        found = label_tables.read("s3://photos/labels.csv", listed, "/nowhere")
    assert [{"path": "s3://photos/a.jpg", "label": "red"}] == found.to_pylist()
    assert proxy.requests
    for request in proxy.requests:
        assert b"\r\nx-amz-request-payer: requester\r\n" in request.lower()


@pytest.mark.parametrize("unconditional", [False, True])
def test_a_new_lake_says_where_several_writers_would_lose_commits(
    server, monkeypatch, caplog, unconditional
):
    with s3_proxy.in_process(server, unconditional=unconditional) as url:
        set_all(monkeypatch, **s3_servers.KEYS, AWS_ENDPOINT_URL=url)
        for table in ("images", "files"):
            snapshots.create(f"s3://photos/lake/{table}", table)
    lines = [record.message for record in caplog.records if "lose commits" in record.message]
    assert (1 if unconditional else 0) == len(lines)
    listed = s3_servers.client(server).list_objects_v2(Bucket="photos")["Contents"]
    assert all("/_delta_log/" in one["Key"] for one in listed)


def test_credentials_are_in_no_text_of_theirs(monkeypatch):
    set_all(monkeypatch, **s3_servers.KEYS)
    assert "secret" not in repr(object_storage.aws.credentials())
