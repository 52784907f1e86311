import json
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable

from mlproject.errors import UserError
from mlproject.ingestion.known_files import paths
from mlproject.lake import location, tables

WHEN = datetime(2026, 1, 2, 3, 4, 5, 678_901, tzinfo=UTC)


def note(path="/a.jpg", state="unchanged", at=WHEN):
    columns = location.SCHEMAS["files"]
    row = {"path": path, "image_id": "0" * 64, "size_bytes": 7, "state": state, "at": at}
    return pa.Table.from_pylist([row], schema=columns)


def files(lake):
    return tables.snapshot(lake, "files", "ingest")


def noted(lake):
    return tables.query(lake, "SELECT path FROM files", ["files"])["path"].to_pylist()


def test_of_two_commits_from_one_snapshot_one_is_kept(lake):
    since = files(lake)
    assert tables.append(note("/a.jpg"), since) is not None
    assert tables.append(note("/b.jpg"), since) is None
    assert ["/a.jpg"] == noted(lake)


def test_who_was_overtaken_after_his_own_commit_does_not_overtake_back(lake, monkeypatch):
    """Between a commit and the look at what it made, another commit of the same filler lands."""
    first, opened = files(lake), tables.version_of

    def late(path, filler, number):
        monkeypatch.setattr(tables, "version_of", opened)
        assert tables.append(note("/x.jpg"), files(lake)) is not None
        return opened(path, filler, number)

    monkeypatch.setattr(tables, "version_of", late)
    second = tables.append(note("/a.jpg"), first)
    assert second is not None
    assert (1, 0) == (second.version, second.fills)
    assert tables.append(note("/x.jpg"), second) is None
    assert ["/a.jpg", "/x.jpg"] == sorted(noted(lake))


def test_a_commit_beside_a_deletion_or_a_change_of_the_table_is_to_be_computed_again(lake):
    for change in (
        lambda table: table.delete("path = '/a.jpg'"),
        lambda table: table.alter.set_table_properties({"delta.logRetentionDuration": "P1D"}),
    ):
        assert tables.append(note(), files(lake)) is not None
        since = files(lake)
        change(DeltaTable(since.path))
        assert tables.append(note("/late.jpg"), since) is None


def test_the_log_tells_ranges_and_nulls_and_no_path_and_no_hash(lake):
    since = files(lake)
    tables.append(note("/private/secret.jpg"), since)
    [log] = Path(since.path, "_delta_log").glob("*1.json")
    text = log.read_text()
    assert "secret" not in text
    assert "0000000000" not in text
    [added] = [json.loads(line)["add"] for line in text.splitlines() if '"add"' in line]
    told = json.loads(added["stats"])
    assert 1 == told["numRecords"]
    # Whole milliseconds, rounded so that the range holds the time.
    assert {"size_bytes": 7, "at": "2026-01-02T03:04:05.678Z"} == told["minValues"]
    assert {"size_bytes": 7, "at": "2026-01-02T03:04:05.679Z"} == told["maxValues"]
    assert (0, 1) == (told["nullCount"]["path"], told["nullCount"]["modified_at"])
    asked = f"SELECT path FROM files WHERE at = arrow_cast('{WHEN.isoformat()}', {TIME})"
    assert 1 == tables.query(lake, asked, ["files"]).num_rows


TIME = "'Timestamp(Microsecond, Some(\"UTC\"))'"


def test_a_table_that_is_not_there_has_no_rows(lake):
    assert 0 == paths(lake).num_rows
    assert [] == [name for name in Path(lake).iterdir() if name.name[0] != "."]


def test_a_broken_log_is_one_line(lake):
    since = files(lake)
    for file in Path(since.path, "_delta_log").glob("*.json"):
        file.write_text("no json")
    with pytest.raises(UserError, match="cannot be read") as told:
        files(lake)
    assert 1 == len(str(told.value).splitlines())


@pytest.mark.parametrize("name", ["a%20b", "a\\b", "a\nb"])
def test_a_lake_with_a_name_that_deltalake_takes_for_another_is_refused(tmp_path, name):
    with pytest.raises(UserError, match="Name another"):
        location.locate_to_write(str(tmp_path / name))


@pytest.mark.parametrize("name", ["a b", "100%", "#?+", "ä:"])
def test_a_lake_may_have_any_other_name(tmp_path, name):
    lake = location.locate_to_write(str(tmp_path / name))
    assert tables.append(note(), files(lake)) is not None
    assert ["/a.jpg"] == noted(lake)
