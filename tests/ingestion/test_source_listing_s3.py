"""Sources in S3, against a server of the protocol (moto) that runs as a process of its own."""

import socket
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from mlproject.images import image_files
from mlproject.ingestion import file_tasks, new_images, source_listing
from mlproject.lake import queries, snapshots
from mlproject.storage import object_storage, s3
from tests.conftest import photo, start_command
from tests.conftest import photos as local_photos
from tests.support import s3_servers
from tests.support.s3_servers import (
    KEYS,
    Proxy,
    client,
    names,
    put,
    refusal,
)


def photos(server, bucket, count):
    put(server, bucket, **{f"red/{n:03}.jpg": photo((200, 30, 30), n) for n in range(count)})


def test_credentials_are_taken_from_a_profile_too(server, bucket, somebody, monkeypatch, tmp_path):
    source = f"s3://{bucket}?endpoint_override={server}"
    assert "Access is refused. Set AWS_ACCESS_KEY_ID" in refusal(source_listing.listing, source)
    lines = [f"{name.lower()} = {value}" for name, value in somebody.items()]
    (tmp_path / "credentials").write_text("\n".join(["[mine]", *lines]))
    for name in KEYS:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_PROFILE", "mine")
    assert 0 == source_listing.listing(source).files.num_rows


def test_more_keys_than_a_page_holds_are_all_listed(server, bucket):
    put(server, bucket, **{f"many/{number:04}.jpg": b"x" for number in range(1050)})
    listed = source_listing.listing(f"s3://{bucket}?endpoint_override={server}")
    assert [f"many/{number:04}.jpg" for number in range(1050)] == names(listed)
    assert {"many"} == set(listed.files["label"].to_pylist())


ODD = ["a b.jpg", "%41.jpg", "#?&=.jpg", "a+b.jpg", "😀.jpg", "gr\u00fc.jpg", "gru\u0308.jpg"]
ODD += ["[1].jpg", "'\"<>.jpg", "back\\slash.jpg", "tab\t.jpg", "plus%2B.jpg", "x.jpg/in.jpg"]
ODD += ["x" * 1000 + ".jpg", "s3:/b.jpg", "both", "both/in.jpg"]


def test_keys_of_any_characters_are_listed_and_opened_as_they_are(server, bucket):
    put(server, bucket, **{f"odd %41+/{key}": key.encode() for key in ODD})
    listed = source_listing.listing(f"s3://{bucket}/odd %41+?endpoint_override={server}", "*")
    assert f"s3://{bucket}/odd %41+" == listed.root
    assert sorted(ODD) == sorted(names(listed))
    _, filesystem, prefix = object_storage.filesystem(listed.source)
    paths = listed.files["path"].to_pylist()
    for path in paths:
        with filesystem.open_input_stream(path.removeprefix(prefix), compression=None) as stream:
            assert path.removeprefix(f"{listed.root}/").encode() == stream.read()
    assert [False] * len(ODD) == object_storage.missing_files(
        listed.source, listed.files["path"].to_pylist()
    )


def test_keys_that_pyarrow_cannot_open_are_counted_and_folders_of_no_bytes_are_no_files(
    server, bucket
):
    lost = ("a//b.jpg", "./c.jpg", "d/../e.jpg", "/f.jpg")
    put(server, bucket, **dict.fromkeys(lost, b"x"), **{"marker/": b"", "empty.jpg": b""})
    put(server, bucket, **{"there.jpg": b"x"})
    listed = source_listing.listing(f"s3://{bucket}?endpoint_override={server}")
    assert ["there.jpg"] == names(listed)
    assert {"name": len(lost), "empty": 1} == listed.left_counts()


def test_a_bucket_or_folder_that_is_not_there_is_one_line(server, bucket):
    no_bucket = f"s3://nowhere?endpoint_override={server}"
    assert "no such bucket" in refusal(source_listing.listing, no_bucket)
    no_folder = f"s3://{bucket}/nowhere?endpoint_override={server}"
    assert "no such folder" in refusal(source_listing.listing, no_folder)


def test_a_folder_that_may_not_be_listed_is_counted_and_its_neighbours_are_listed(server, bucket):
    put(server, bucket, **{"there/a.jpg": b"x", "secret/b.jpg": b"x"})
    with Proxy(server, "prefix=secret", 99, s3_servers.refused).running() as proxy:
        listed = source_listing.listing(f"s3://{bucket}?endpoint_override={proxy.url}")
        assert (["there/a.jpg"], {"unreadable": 1}) == (names(listed), listed.left_counts())
        secret = f"s3://{bucket}/secret?endpoint_override={proxy.url}"
        assert "Access is refused" in refusal(source_listing.listing, secret)


def test_files_of_a_bucket_that_is_gone_are_not_marked_as_removed(server, bucket):
    put(server, bucket, **{"a.jpg": b"x"})
    listed = source_listing.listing(f"s3://{bucket}?endpoint_override={server}")
    paths = [*listed.files["path"].to_pylist(), f"s3://{bucket}/b.jpg"]
    assert [False, True] == object_storage.missing_files(listed.source, paths)
    client(server).delete_object(Bucket=bucket, Key="a.jpg")
    client(server).delete_bucket(Bucket=bucket)
    assert "no such bucket" in refusal(object_storage.missing_files, listed.source, paths)


def test_a_server_that_refuses_or_never_responds_is_one_line_in_bounded_time(monkeypatch):
    monkeypatch.setattr(s3, "SILENT_SECONDS", 1.0)
    began = time.monotonic()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        for port in (1, silent.getsockname()[1]):
            source = f"s3://photos?endpoint_override=http://127.0.0.1:{port}"
            assert "cannot be reached" in refusal(source_listing.listing, source)
    assert time.monotonic() - began < 30


@pytest.mark.spark
def test_a_bucket_becomes_rows_of_canonical_paths_and_a_second_ingest_commits_nothing(
    workers, lake, server, bucket
):
    photos(server, bucket, 3)
    put(server, bucket, **{f"odd/{key}.jpg": photo((1, 2, 3)) for key in ("a b", "%41#?", "😀")})
    source = f"s3://{bucket}?endpoint_override={server}"
    first = new_images.ingest_pending(workers, lake, source_listing.listing(source))
    second = new_images.ingest_pending(workers, lake, source_listing.listing(source))
    rows = snapshots.required(lake, "images").read(workers).orderBy("path").collect()
    listed = source_listing.listing(source).files["path"].to_pylist()
    assert (6, 0, first.table_version) == (first.rows, second.rows, second.table_version)
    assert listed == [row.path for row in rows]
    assert f"s3://{bucket}/red/000.jpg" == rows[-3].path
    assert photo((200, 30, 30), 0) == bytes(rows[-3].content)
    assert ("red", "JPEG", 48) == (rows[-3].label, rows[-3].format, rows[-3].width)


@pytest.mark.spark
def test_a_connection_that_breaks_is_made_again_and_given_up_after_some_tries(
    workers, lake, server, bucket
):
    photos(server, bucket, 3)
    for times, rows, left in ((99, 2, {"unreadable": 1}), (s3.ATTEMPTS - 1, 1, {})):
        with Proxy(server, "red/001.jpg", times).running() as proxy:
            source = f"s3://{bucket}?endpoint_override={proxy.url}"
            done = new_images.ingest_pending(workers, lake, source_listing.listing(source))
        assert (rows, left) == (done.rows, done.left)
        assert proxy.changed >= s3.ATTEMPTS - 1
    content = [row.content for row in snapshots.required(lake, "images").read(workers).collect()]
    assert {photo((200, 30, 30), n) for n in range(3)} == {bytes(one) for one in content}


@pytest.mark.spark
def test_an_object_overwritten_while_it_is_read_is_no_mixture_of_both(
    workers, lake, server, bucket
):
    old, new = (photo((9, 9, 9), seed).ljust(3_000_000, b"%d" % seed) for seed in (1, 2))
    put(server, bucket, **{"a.jpg": old})

    def overwrite(answer):
        time.sleep(1.1)  # a listing has whole seconds
        put(server, bucket, **{"a.jpg": new})
        return answer

    with Proxy(server, "a.jpg", 1, overwrite).running() as proxy:
        source = f"s3://{bucket}?endpoint_override={proxy.url}"
        listed = source_listing.listing(source)
        read = object_storage.reader(source)
        assert old == b"".join(read(listed.files["path"][0].as_py()))
        assert 1 == proxy.changed
        assert 1 == new_images.ingest_pending(workers, lake, listed).rows
    source = source.replace(proxy.url, server)
    again = new_images.ingest_pending(workers, lake, source_listing.listing(source))
    assert (0, {"unchanged": 1}) == (again.rows, again.left)
    [row] = snapshots.required(lake, "images").read(workers).collect()
    assert new == bytes(row.content)


def test_a_small_object_overwritten_before_its_bytes_come_is_no_part_of_the_new_one(server, bucket):
    old, new = (photo((9, 9, 9), 1, size) for size in ((20, 20), (200, 200)))
    put(server, bucket, **{"a.jpg": old})

    listed = source_listing.listing(f"s3://{bucket}?endpoint_override={server}")
    put(server, bucket, **{"a.jpg": new})
    [file] = listed.files.to_pylist()
    read, reading = object_storage.reader(listed.source), image_files.Reading(listed.source)
    assert (None, "changing") == image_files.read_file(read, file, reading)


@pytest.mark.spark
def test_a_bucket_that_vanishes_after_it_was_listed_leaves_all_pending(
    workers, lake, server, bucket
):
    photos(server, bucket, 2)
    listed = source_listing.listing(f"s3://{bucket}?endpoint_override={server}")
    for path in names(listed):
        client(server).delete_object(Bucket=bucket, Key=path)
    client(server).delete_bucket(Bucket=bucket)
    done = new_images.ingest_pending(workers, lake, listed)
    assert (0, {"gone": 2}) == (done.rows, done.left)
    assert "no such bucket" in refusal(object_storage.require, listed.source)


@pytest.mark.spark
def test_a_server_that_breaks_every_connection_is_given_up_after_a_few_files(
    workers, lake, server, bucket
):
    photos(server, bucket, 60)
    with Proxy(server, ".jpg", 10_000, change=lambda answer: b"").running() as proxy:
        listed = source_listing.listing(f"s3://{bucket}?endpoint_override={proxy.url}")
        done = new_images.ingest_pending(workers, lake, listed)
    assert (0, {"unreadable": 60}) == (done.rows, done.left)
    files = file_tasks.BROKEN_AT_MOST + file_tasks.REMOTE  # of a task, and there is one
    assert 0 < proxy.changed <= files * s3.ATTEMPTS < 60 * 3
    assert "cannot be reached" in refusal(object_storage.require, listed.source)


@pytest.mark.spark
def test_ingest_reports_a_missing_bucket_in_one_line(server, tmp_path):
    store = {"MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/mlflow.db", "AWS_ENDPOINT_URL": server}
    asked = start_command("ingest", "--source", "s3://nowhere/photos", cwd=tmp_path, **store)
    output, _ = asked.communicate(timeout=300)
    lines = [line for line in output.splitlines() if line.startswith("mlproject")]
    assert (2, 1) == (asked.returncode, len(lines)), output
    assert "There is no such bucket" in lines[0]
    assert "Traceback" not in output


@pytest.mark.spark
def test_a_lake_in_s3_takes_two_ingests_at_once_and_doubles_nothing(
    workers, server, bucket, tmp_path, monkeypatch
):
    there = {"AWS_ENDPOINT_URL": server, "AWS_ALLOW_HTTP": "true", "AWS_REGION": "us-east-1"}
    for name, value in there.items():
        monkeypatch.setenv(name, value)
    workers.sparkContext.environment.update(there)
    lake = f"s3a://{bucket}/lake"
    listed = source_listing.listing(str(local_photos(tmp_path / "source", 6)))
    work = (workers, lake, listed, new_images.IngestSettings(max_files=1))
    with ThreadPoolExecutor(2) as pool:
        both = [pool.submit(new_images.ingest_pending, *work) for _ in range(2)]
    assert 6 == sum(one.result().rows for one in both)
    found = queries.query(lake, "SELECT path, content FROM images", ["images"])
    assert listed.files["path"].to_pylist() == sorted(found["path"].to_pylist())
    assert photo((200, 30, 30), 5) in found["content"].to_pylist()
