import hashlib
from collections import Counter

import pyarrow as pa
import pytest

from mlproject import contents
from mlproject.errors import UserError
from tests.conftest import photo
from tests.lakes_for_tests import add, day, hold

RED, GREEN = (photo(colour) for colour in ((200, 9, 9), (9, 200, 9)))


def test_the_bytes_of_a_reference_come_from_a_file_that_still_has_them(lake, tmp_path):
    here, there = tmp_path / "here.jpg", tmp_path / "there.jpg"
    for file in (here, there):
        file.write_bytes(RED)
        image_id = hold(lake, str(file), RED, day(1), inline=False)
    assert (RED, "") == contents.of_image(lake, image_id)
    here.write_bytes(GREEN)
    assert (RED, "") == contents.of_image(lake, image_id)
    there.unlink()
    assert (None, "changed") == contents.of_image(lake, image_id)
    here.unlink()
    assert (None, "gone") == contents.of_image(lake, image_id)


def test_bytes_in_the_table_go_before_those_of_files(lake, tmp_path):
    (tmp_path / "a.jpg").write_bytes(RED)
    hold(lake, "/gone.jpg", RED, day(1))
    image_id = hold(lake, str(tmp_path / "a.jpg"), RED, day(2), inline=False)
    (tmp_path / "a.jpg").unlink()
    assert (RED, "") == contents.of_image(lake, image_id)


def test_bytes_that_are_not_those_of_the_image_id_are_refused(lake):
    row = {"path": "/a.jpg", "image_id": "1" * 64, "content": b"other", "ingested_at": day(1)}
    add(lake, "images", row)
    with pytest.raises(UserError, match="others"):
        contents.of_image(lake, "1" * 64)


def test_files_are_not_waited_for_once_their_server_is_away(tmp_path, monkeypatch):
    """Else the waits of a task add up to more than its `task_timeout`."""
    waited, read = [], contents._read_again

    def noted(path, waits):
        waited.append(len(waits))
        return read(path, ())

    monkeypatch.setattr(contents, "_read_again", noted)
    (tmp_path / "here.jpg").write_bytes(RED)
    image_id = hashlib.sha256(RED).hexdigest()
    away = [{"image_id": str(number), "paths": [str(tmp_path)]} for number in range(6)]
    asked = [*away, {"image_id": image_id, "paths": [str(tmp_path / "here.jpg")]}]
    batch = pa.RecordBatch.from_pylist([{"size_bytes": len(RED), **row} for row in asked])
    text = {"image_id": pa.string(), "content": pa.binary(), "error": pa.string()}
    counts = Counted()
    fetch = contents._fetcher(counts, pa.schema(text))
    found = pa.Table.from_batches(fetch(iter([batch])))
    assert [{"image_id": image_id, "content": RED, "error": None}] == found.to_pylist()
    assert ([2, 2, 2, 0, 0, 0, 0], 6) == (waited, counts.value["unreadable"])


class Counted:
    """Counts as a Spark accumulator does."""

    def __init__(self):
        self.value = Counter()

    def add(self, more):
        self.value += more
