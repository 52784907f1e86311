from pathlib import Path

import pyarrow as pa
import pytest

from mlproject.errors import UserError
from mlproject.ingestion.known_files import paths
from mlproject.lake import commits, location, queries, schemas, snapshots


def test_a_table_that_is_not_there_has_no_rows(lake):
    assert 0 == paths(lake, "", "z").num_rows
    assert [] == list(Path(lake).iterdir())


def test_a_table_that_nobody_made_is_an_error_with_the_command_that_makes_it(lake):
    with pytest.raises(UserError, match="-e ingest"):
        snapshots.required(lake, "images")


def test_a_broken_log_is_one_line(lake):
    since = snapshots.to_append(lake, "files", "ingest")
    for file in Path(since.path, "_delta_log").glob("*.json"):
        file.write_text("no json")
    with pytest.raises(UserError, match="cannot be read") as raised:
        snapshots.to_append(lake, "files", "ingest")
    assert 1 == len(str(raised.value).splitlines())


def test_a_table_with_other_columns_is_refused(lake):
    import deltalake

    deltalake.write_deltalake(f"{lake}/images", pa.table({"id": [1]}))
    with pytest.raises(UserError, match="'path' is missing"):
        snapshots.to_append(lake, "images", "ingest")


def test_a_lake_where_a_file_lies_is_refused(tmp_path):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(UserError, match="cannot be written"):
        location.locate_to_write(str(tmp_path / "file" / "lake"))


def test_a_folder_of_other_files_is_not_made_a_table(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "photo.jpg").write_bytes(b"x")
    with pytest.raises(UserError, match="folder of other files"):
        snapshots.to_append(str(tmp_path), "images", "ingest")


@pytest.mark.parametrize("name", ["a%20b", "a\\b", "a\nb"])
def test_a_lake_with_a_name_that_deltalake_takes_for_another_is_refused(tmp_path, name):
    with pytest.raises(UserError, match="Name another"):
        location.locate_to_write(str(tmp_path / name))


@pytest.mark.parametrize("name", ["a b", "100%", "#?+", "ä:"])
def test_a_lake_may_have_any_other_name(tmp_path, name):
    lake = location.locate_to_write(str(tmp_path / name))
    row = {"image_id": "0" * 64}
    rows = pa.Table.from_pylist([row], schema=schemas.SCHEMAS["erased"])
    assert commits.append_rows(rows, snapshots.to_append(lake, "erased", "erase")) is not None
    found = queries.query(lake, "SELECT image_id FROM erased", ["erased"])
    assert [row] == found.to_pylist()


@pytest.mark.parametrize("lake", ["/data/lake", "file:/data/lake", "file:///data/lake"])
def test_a_local_lake_is_one_folder_however_it_is_written(lake):
    assert location.is_local(lake)
    assert "/data/lake" == location.locate(lake)


@pytest.mark.parametrize(
    "lake", ["s3a://bucket/lake", "dbfs:/lake", "abfss://c@a.dfs.core.windows.net/lake"]
)
def test_a_lake_elsewhere_is_the_uri_that_it_is(lake):
    assert not location.is_local(lake)
    assert lake.replace("s3a:", "s3:") == location.locate(f"{lake}/")


@pytest.mark.parametrize(
    "start", ["s3://bucket", "gs://bucket", "abfss://c@a.dfs.core.windows.net"]
)
@pytest.mark.parametrize("rest", ["%41x", "a#b", "x/../y", "a//b", "./a", "a\\b"])
def test_a_name_that_clients_take_for_different_places_is_refused(start, rest):
    with pytest.raises(UserError, match="Name another"):
        location.locate(f"{start}/{rest}")
