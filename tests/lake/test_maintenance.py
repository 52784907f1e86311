import json
import os
import shutil
import signal
import time
from pathlib import Path

import pytest

import mlproject
from mlproject.errors import UserError
from mlproject.lake import (
    commits,
    data_files,
    maintenance,
    queries,
    rewrites,
    schemas,
    snapshots,
    vacuum,
)
from tests.lake.test_commits import no_spark, note
from tests.support.commands import run_command
from tests.support.kills import killed_at_write

MB = 1024**2


@pytest.fixture
def noted(lake) -> str:
    """A lake whose table `files` has twelve small data files."""
    since = snapshots.to_append(lake, "files", "ingest")
    for number in range(12):
        since = commits.append_rows(note(f"/{number:02}.jpg"), since)
    return lake


def paths(lake):
    sql = "SELECT path FROM files ORDER BY path"
    return queries.query(lake, sql, ["files"])["path"].to_pylist()


def written_files(lake):
    return list(Path(lake, "files").glob("*.parquet"))


def test_small_files_are_put_together_when_they_are_many_and_not_again(noted):
    path = f"{noted}/files"
    assert 12 == maintenance.compact_small(path, 64 * MB, no_spark)
    assert 0 == maintenance.compact_small(path, 64 * MB, no_spark)
    assert [f"/{number:02}.jpg" for number in range(12)] == paths(noted)


def test_files_of_a_quarter_of_the_target_size_are_left(noted):
    files = snapshots.active_files(snapshots.open_table(f"{noted}/files"))
    assert 0 == maintenance.small_size(files, 2048)


def test_maintenance_compacts_and_leaves_old_files_for_a_day(noted, store):
    planned = mlproject.maintain(lake=noted, plan=True)
    assert [("files", 12, 12, 0, 0)] == [
        (one.table, one.files, one.files_compacted, one.files_mended, one.files_removed)
        for one in planned.tables
    ]
    before = snapshots.newest(noted, "files").version
    done = mlproject.maintain(lake=noted)
    assert (12, before + 1) == (done.tables[0].files_compacted, done.tables[0].table_version)
    assert 13 == len(written_files(noted))
    assert list(Path(noted, "files/_delta_log").glob("*.checkpoint.parquet"))
    assert [f"/{number:02}.jpg" for number in range(12)] == paths(noted)


def test_a_file_that_no_commit_names_goes_after_a_day_and_one_that_is_being_written_stays(noted):
    path = Path(noted, "files")
    for name in ("young", "old"):
        (path / f"part-{0:020}-{name}.parquet").write_bytes(b"x")
    old = time.time() - 25 * 3600
    os.utime(path / f"part-{0:020}-old.parquet", (old, old))
    found = vacuum.old_files(str(path), 24)
    assert [f"part-{0:020}-old.parquet"] == list(found)


@pytest.mark.slow
def test_killed_at_each_step_that_writes_it_loses_nothing_and_the_next_run_does_the_rest(
    noted, tmp_path
):
    path = Path(noted, "files")
    orphan, late = (f"part-{0:020}-{name}.parquet" for name in ("orphan", "late"))
    for name, age in ((orphan, 25 * 3600), (late, 0)):  # the late one's writer has yet to commit
        (path / name).write_bytes(b"x")
        os.utime(path / name, (time.time() - age,) * 2)
    since = snapshots.to_append(noted, "files", "ingest")
    old = data_files.write([note("/x.jpg")], schemas.SCHEMAS["files"], since.path, since.version)
    for bounds in ("minValues", "maxValues"):  # as older releases wrote them
        del old.statistics[bounds]["path"]
    commits.append_files([old], since)
    rows, kills, ended = paths(noted), 0, -signal.SIGKILL
    while ended == -signal.SIGKILL:
        lake = str(tmp_path / str(kills))
        shutil.copytree(noted, lake)
        table = f"{lake}/files"
        call = f"maintenance.maintain_table({table!r}, 'files', 24, None)"
        ended = killed_at_write(f"from mlproject.lake import maintenance\n{call}", kills)
        kills += 1
        assert rows == paths(lake)
        maintenance.maintain_table(table, "files", 24, no_spark)
        assert rows == paths(lake)
        assert (False, True) == (Path(table, orphan).exists(), Path(table, late).exists())
        assert list(Path(table, "_delta_log").glob("*.checkpoint.parquet"))
        again = maintenance.maintain_table(table, "files", 24, no_spark, plan=True)
        assert (1, 0, 0, 0) == (
            again.files,
            again.files_compacted,
            again.files_mended,
            again.files_removed,
        )
    assert 0 == ended
    assert kills > 12  # six steps, and the undisturbed run


def test_a_retention_below_a_day_is_refused(noted, store):
    with pytest.raises(UserError, match="retention_hours=1 is below 24"):
        mlproject.maintain(lake=noted, retention_hours=1)


def test_a_table_that_is_not_there_is_an_error_with_the_command_that_makes_it(lake, store):
    with pytest.raises(UserError, match="-e ingest"):
        mlproject.maintain(lake=lake)
    with pytest.raises(UserError, match="-e score"):
        mlproject.maintain(lake=lake, table="predictions")


def test_files_that_a_table_names_and_its_folder_lacks_stop_the_removal_of_others(noted):
    written_files(noted)[0].unlink()
    with pytest.raises(UserError, match="which is not in its folder"):
        vacuum.old_files(f"{noted}/files", 24)


def test_the_command_prints_a_line_a_table(noted, store):
    result = run_command("maintain", "--lake", noted, "--plan", "true")
    assert "files     12         12" in result.stdout
    assert "Nothing was written" in result.stdout


def test_of_two_erasures_at_once_none_removes_a_file_of_the_newest_version(noted, monkeypatch):
    path, opened = f"{noted}/files", iter([1])
    rewrites.erase_rows(path, ["0" * 64], no_spark)
    since = snapshots.to_append(noted, "files", "ingest")
    commits.append_rows(note("/late.jpg"), since)
    active_files = vacuum.active_files

    def slow(table):
        found = active_files(table)
        for _ in opened:  # another erasure comes between the listing and the removal
            rewrites.erase_rows(path, ["1" * 64], no_spark)
        return found

    monkeypatch.setattr(vacuum, "active_files", slow)
    vacuum.erased_files(path)
    assert ["/late.jpg"] == paths(noted)
    assert vacuum.is_unfinished(path)  # the other erasure has not removed its files yet
    vacuum.erased_files(path)
    assert not vacuum.is_unfinished(path)


def test_a_file_that_cannot_be_removed_is_an_error_and_the_erasure_stays_unfinished(
    noted, monkeypatch
):
    path = f"{noted}/files"
    rewrites.erase_rows(path, ["0" * 64], no_spark)

    class Refusing:
        def __init__(self, inner):
            self.inner = inner

        def __getattr__(self, name):
            return getattr(self.inner, name)

        def delete_file(self, name):
            raise PermissionError("no")

    opened = vacuum.open_path
    monkeypatch.setattr(
        vacuum, "open_path", lambda path: (Refusing(opened(path)[0]), opened(path)[1])
    )
    with pytest.raises(UserError, match="cannot be removed"):
        vacuum.erased_files(path)
    assert vacuum.is_unfinished(path)


def test_a_table_with_column_mapping_is_refused(noted):
    [first] = Path(noted, "files/_delta_log").glob("*00000.json")
    lines = [json.loads(line) for line in first.read_text().splitlines()]
    for line in lines:
        if "metaData" in line:
            line["metaData"]["configuration"]["delta.columnMapping.mode"] = "name"
    other = Path(noted, "other/_delta_log")
    other.mkdir(parents=True)
    (other / first.name).write_text("\n".join(map(json.dumps, lines)))
    found = snapshots.open_table(str(other.parent))
    with pytest.raises(UserError, match="column mapping"):
        snapshots.require_writable(found, str(other.parent))
    with pytest.raises(UserError, match="column mapping"):
        rewrites.erase_rows(str(other.parent), ["0" * 64], no_spark)
