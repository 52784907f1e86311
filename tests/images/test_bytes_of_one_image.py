import hashlib
from collections import Counter

import pyarrow as pa
import pytest

from mlproject.errors import UserError
from mlproject.images import image_bytes, referenced_files, stored_images
from tests.conftest import photo
from tests.support.lakes import add, add_image, day

RED, GREEN = (photo(colour) for colour in ((200, 9, 9), (9, 200, 9)))


def test_the_bytes_of_a_reference_come_from_a_file_that_still_has_them(lake, tmp_path):
    here, there = tmp_path / "here.jpg", tmp_path / "there.jpg"
    for file in (here, there):
        file.write_bytes(RED)
        image_id = add_image(lake, str(file), RED, day(1), inline=False)
    assert (RED, "") == stored_images.read_image(lake, image_id)
    here.write_bytes(GREEN)
    assert (RED, "") == stored_images.read_image(lake, image_id)
    there.unlink()
    assert (None, "changed") == stored_images.read_image(lake, image_id)
    here.unlink()
    assert (None, "gone") == stored_images.read_image(lake, image_id)


def test_bytes_in_the_table_are_used_before_those_of_files(lake, tmp_path):
    (tmp_path / "a.jpg").write_bytes(RED)
    add_image(lake, "/gone.jpg", RED, day(1))
    image_id = add_image(lake, str(tmp_path / "a.jpg"), RED, day(2), inline=False)
    (tmp_path / "a.jpg").unlink()
    assert (RED, "") == stored_images.read_image(lake, image_id)


def test_bytes_with_another_sha256_are_refused(lake):
    row = {"path": "/a.jpg", "image_id": "1" * 64, "content": b"other", "ingested_at": day(1)}
    add(lake, "images", row)
    with pytest.raises(UserError, match="another sha256"):
        stored_images.read_image(lake, "1" * 64)


def test_after_several_failures_of_a_server_no_file_is_read_with_retries(tmp_path, monkeypatch):
    """Else the waits of a task add up to more than its `task_timeout`."""
    waited, read = [], referenced_files._read_with_retries

    def noted(path, waits):
        waited.append(len(waits))
        return read(path, ())

    monkeypatch.setattr(referenced_files, "_read_with_retries", noted)
    monkeypatch.setattr(image_bytes, "REMOTE", 1)
    (tmp_path / "here.jpg").write_bytes(RED)
    image_id = hashlib.sha256(RED).hexdigest()
    away = [{"image_id": str(number), "paths": [str(tmp_path)]} for number in range(6)]
    asked = [*away, {"image_id": image_id, "paths": [str(tmp_path / "here.jpg")]}]
    batch = pa.RecordBatch.from_pylist([{"size_bytes": len(RED), **row} for row in asked])
    text = {"image_id": pa.string(), "content": pa.binary(), "error": pa.string()}
    counts = Counted()
    fetch = image_bytes._fetcher(counts, pa.schema(text))
    found = pa.Table.from_batches(fetch(iter([batch])))
    assert [{"image_id": image_id, "content": RED, "error": None}] == found.to_pylist()
    assert ([2, 2, 2, 0, 0, 0, 0], 6) == (waited, counts.value["unreadable"])


def test_a_server_that_does_not_respond_gets_no_request_for_each_file(tmp_path, monkeypatch):
    asked = []

    def away(path):
        asked.append(path)
        raise UserError("The server does not answer")

    monkeypatch.setattr(referenced_files, "blocks", away)
    monkeypatch.setattr(image_bytes, "REMOTE", 1)
    monkeypatch.setattr(referenced_files, "RETRY_WAITS_S", ())
    monkeypatch.setattr(referenced_files, "SERVER_TIMEOUT_S", 0)
    rows = [{"image_id": str(n), "size_bytes": 1, "paths": [f"s3://a/{n}"]} for n in range(4)]
    rows += [{"image_id": "9", "size_bytes": 1, "paths": ["s3://b/9"]}]
    counts = Counted()
    fetch = image_bytes._fetcher(counts, pa.schema({"image_id": pa.string()}))
    batch = pa.RecordBatch.from_pylist(rows)
    assert 0 == sum(found.num_rows for found in fetch(iter([batch])))
    assert (["s3://a/0", "s3://b/9"], 5) == (asked, counts.value["unreadable"])


def test_a_file_in_an_empty_folder_is_not_gone_as_its_disk_may_be_mounted_later(lake, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    (disk / "a.jpg").write_bytes(RED)
    image_id = add_image(lake, str(disk / "red" / "a.jpg"), RED, day(1), inline=False)
    assert (None, "gone") == stored_images.read_image(lake, image_id)
    (disk / "a.jpg").unlink()
    with pytest.raises(UserError, match="is empty, like a disk that is not mounted"):
        stored_images.read_image(lake, image_id)
    (tmp_path / "there.jpg").write_bytes(RED)
    add_image(lake, str(tmp_path / "there.jpg"), RED, day(0), inline=False)
    assert (RED, "") == stored_images.read_image(lake, image_id)
    (tmp_path / "there.jpg").write_bytes(GREEN)
    assert (None, "changed") == stored_images.read_image(lake, image_id)


class Counted:
    """Counts as a Spark accumulator does."""

    def __init__(self):
        self.value = Counter()

    def add(self, more):
        self.value += more
