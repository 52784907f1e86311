"""Tables in Google's and Azure's clouds, without Spark: real servers under the services' names."""

import pyarrow as pa
import pytest
from pyarrow import fs

from mlproject.lake import commits, data_files, queries, snapshots, vacuum
from mlproject.storage import object_storage
from tests.support import cloud_accounts
from tests.support.lakes import day, image_id

LARGE = 12 * 1024**2  # bytes; more than one request of an upload


@pytest.fixture(params=cloud_accounts.KINDS)
def kind(request):
    return request.param


@pytest.fixture
def lake(kind, tmp_path):
    with cloud_accounts.found(kind, tmp_path) as uri:
        yield f"{uri}/lake"


def label(number):
    row = {"path": f"{number}.jpg", "image_id": image_id(number), "label": "red"}
    return {**row, "source": "test", "at": day(number)}


def test_what_is_committed_is_read_and_a_loser_is_told(lake, caplog):
    first = snapshots.to_append(lake, "labels", "first")
    second = snapshots.to_append(lake, "labels", "second")
    rows = [pa.Table.from_pylist([label(number)], snapshots.SCHEMAS["labels"]) for number in (1, 2)]
    again = commits.append_rows(rows[0], first)
    assert again is not None
    assert commits.append_rows(rows[1], second) is not None  # of another filler: tried again
    assert commits.append_rows(rows[1], first) is None  # of the same one
    read = queries.query(lake, "SELECT label, image_id FROM labels", ["labels"]).to_pylist()
    assert {image_id(number) for number in (1, 2)} == {row["image_id"] for row in read}
    assert len(read) == 2
    assert object_storage.is_atomic(f"{lake}/images")
    assert [] == caplog.messages


def test_files_that_no_commit_names_are_found_and_removed(lake):
    since = snapshots.to_append(lake, "labels", "first")
    rows = pa.Table.from_pylist([label(1)], snapshots.SCHEMAS["labels"])
    commits.append_rows(rows, since)
    lost = data_files.write([rows], snapshots.SCHEMAS["labels"], since.path, since.version)
    assert lost is not None
    _, found = vacuum.unreferenced(since.path)
    assert {lost.name: lost.size_bytes} == {name: info.size for name, info in found.items()}
    assert all(info.mtime is not None for info in found.values())
    vacuum.remove(since.path, [lost.name])
    assert {} == vacuum.unreferenced(since.path)[1]


def test_a_file_is_read_from_any_place_and_an_absent_one_is_told(lake, kind):
    size = LARGE if kind == "azure" else 2_000_000  # fake-gcs-server takes no parts
    content = bytes(range(256)) * (size // 256)
    files, path = object_storage.open_path(f"{lake}/some file")
    with files.open_output_stream(path) as stream:
        stream.write(content)
        assert len(content) == stream.tell()
    with files.open_input_file(path) as file:
        assert len(content) == file.size()
        file.seek(1_000)
        assert content[1_000:1_300] == file.read(300)
        assert content[-10:] == file.read_at(20, len(content) - 10)
    assert fs.FileType.NotFound == files.get_file_info(f"{path}, absent").type
    with pytest.raises(FileNotFoundError):
        files.open_input_file(f"{path}, absent")
