import json
import multiprocessing
import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pytest
from deltalake import DeltaTable, Schema

from mlproject.errors import MachineError
from mlproject.lake import commits, data_files, queries, rewrites, schemas, snapshots

WHEN = datetime(2026, 1, 2, 3, 4, 5, 678_901, tzinfo=UTC)


def note(path="/a.jpg", state="unchanged", at=WHEN):
    row = {"path": path, "image_id": "0" * 64, "size_bytes": 7, "state": state, "at": at}
    return pa.Table.from_pylist([row], schema=schemas.SCHEMAS["files"])


def files(lake, filler="ingest"):
    return snapshots.to_append(lake, "files", filler)


def noted(lake):
    return sorted(queries.query(lake, "SELECT path FROM files", ["files"])["path"].to_pylist())


def written_files(lake):
    return {path.name for path in Path(lake, "files").glob("*.parquet")}


def no_spark():
    raise AssertionError("no Spark is needed for little")


def test_of_two_appends_from_one_snapshot_one_is_committed_and_the_losers_file_is_gone(lake):
    since = files(lake)
    assert commits.append_rows(note("/a.jpg"), since) is not None
    assert commits.append_rows(note("/b.jpg"), since) is None
    assert ["/a.jpg"] == noted(lake)
    assert 1 == len(written_files(lake))


def test_the_next_append_of_a_filler_needs_no_new_snapshot(lake):
    first = commits.append_rows(note("/a.jpg"), files(lake))
    assert commits.append_rows(note("/b.jpg"), first) is not None
    assert ["/a.jpg", "/b.jpg"] == noted(lake)


def test_after_anothers_append_the_same_file_is_committed_from_the_newest_version(lake):
    since = files(lake)
    commits.append_rows(note("/other.jpg"), files(lake, "other"))
    appended = commits.append_rows(note("/a.jpg"), since)
    assert (2, 0) == (appended.version, appended.fills)
    assert ["/a.jpg", "/other.jpg"] == noted(lake)
    assert 2 == len(written_files(lake))


def test_another_fillers_commit_in_between_hides_no_lost_race(lake):
    # With the table's version as transaction number both would be committed: B reads one version
    # later than A, because another committed, and so looks newer than A's commit.
    a = files(lake)
    commits.append_rows(note("/other.jpg"), files(lake, "other"))
    b = files(lake)
    assert a.version < b.version
    assert commits.append_rows(note("/a.jpg"), a) is not None
    assert commits.append_rows(note("/b.jpg"), b) is None


def test_who_was_overtaken_after_his_own_commit_does_not_overtake_back(lake):
    first = commits.append_rows(note("/a.jpg"), files(lake))
    assert commits.append_rows(note("/x.jpg"), files(lake)) is not None
    assert commits.append_rows(note("/x.jpg"), first) is None
    assert ["/a.jpg", "/x.jpg"] == noted(lake)


def test_after_a_compaction_the_same_file_is_committed(lake):
    for name in "ab":
        commits.append_rows(note(f"/{name}.jpg"), files(lake))
    since = files(lake)
    rewrites.compact(since.path, 2**20, 2**20, no_spark)
    assert commits.append_rows(note("/c.jpg"), since) is not None
    assert ["/a.jpg", "/b.jpg", "/c.jpg"] == noted(lake)


def test_what_was_begun_before_an_erasure_is_computed_anew(lake):
    since = files(lake)
    rewrites.erase_rows(since.path, ["0" * 64], no_spark)
    assert commits.append_rows(note("/erased.jpg"), since) is None
    assert [] == noted(lake)
    assert set() == written_files(lake)


def test_after_a_change_of_the_tables_properties_the_same_file_is_committed(lake):
    since = files(lake)
    DeltaTable(since.path).alter.set_table_properties({"delta.logRetentionDuration": "P1D"})
    assert commits.append_rows(note("/late.jpg"), since) is not None
    assert ["/late.jpg"] == noted(lake)


def test_a_commit_whose_response_was_lost_is_found_and_not_repeated(lake):
    path = files(lake).path
    base = snapshots.open_table(path)
    first = commits.commit(path, base, [], {"ingest": 0}, mark="mine")
    commits.append_rows(note("/other.jpg"), files(lake, "other"))
    again = commits.commit(path, base, [], {"ingest": 0}, mark="mine")
    assert (1, 1) == (first, again)
    lost = commits.commit(path, base, [], {"ingest": 0}, mark="another")
    assert lost.version() == 2


def test_a_table_that_cannot_be_written_is_one_line_and_leaves_no_file(lake):
    since = files(lake)
    target = Path(since.path, "_delta_log", f"{since.version + 1:020}.json")
    target.mkdir()  # root may write everywhere: a folder in the commit's place stops all
    (target / "x").touch()
    with pytest.raises(MachineError, match="cannot be written") as raised:
        commits.append_rows(note(), since)
    assert 1 == len(str(raised.value).splitlines())
    assert set() == written_files(lake)


def test_a_commit_that_the_disk_refuses_once_is_tried_again(lake, monkeypatch):
    since = files(lake)
    target = Path(since.path, "_delta_log", f"{since.version + 1:020}.json")
    target.mkdir()
    (target / "x").touch()
    # Not `time.sleep` itself: other threads call it.
    waits = SimpleNamespace(sleep=lambda seconds: shutil.rmtree(target), time=time.time)
    monkeypatch.setattr(commits, "time", waits)
    assert commits.append_rows(note("/late.jpg"), since) is not None
    assert ["/late.jpg"] == noted(lake)


def test_the_log_has_bounds_of_every_column_and_no_path_and_no_hash(lake):
    since = files(lake)
    commits.append_rows(note("/private/secret.jpg"), since)
    [log] = Path(since.path, "_delta_log").glob("*1.json")
    text = log.read_text(encoding="utf-8")
    assert "secret" not in text
    assert "0" * 64 not in text
    [added] = [json.loads(line)["add"] for line in text.splitlines() if '"add"' in line]
    logged = json.loads(added["stats"])
    assert 1 == logged["numRecords"]
    wide = dict.fromkeys(("path", "image_id", "state"), "")
    # Whole milliseconds, rounded so that the range holds the time.
    assert {"size_bytes": 7, "at": "2026-01-02T03:04:05.678Z", **wide} == logged["minValues"]
    assert "2026-01-02T03:04:05.679Z" == logged["maxValues"]["at"]
    assert {"\U0010ffff"} == {logged["maxValues"][name] for name in wide}
    assert logged["tightBounds"] is False
    assert (0, 1) == (logged["nullCount"]["path"], logged["nullCount"]["modified_at"])


def _append(lake, filler, count, name):
    done = 0
    while done < count:
        row = note(f"/{name}/{done}.jpg")
        done += commits.append_rows(row, files(lake, filler)) is not None


@pytest.mark.parametrize("fillers", [("a", "b", "c"), ("same", "same", "same")])
def test_several_processes_lose_nothing_and_double_nothing(lake, fillers):
    files(lake)
    context = multiprocessing.get_context("spawn")
    work = [
        context.Process(target=_append, args=(lake, filler, 10, number))
        for number, filler in enumerate(fillers)
    ]
    for process in work:
        process.start()
    for process in work:
        process.join()
    expected = [f"/{number}/{place}.jpg" for number in range(3) for place in range(10)]
    assert sorted(expected) == noted(lake)
    assert 30 == len(written_files(lake))


@pytest.mark.parametrize(
    ("values", "bounds"),
    [
        (pa.array([1.0, 2.0]), (1.0, 2.0)),
        (pa.array([1.0, float("nan")]), None),
        (pa.array([1.0, float("inf")]), None),
        (pa.array([True, False]), None),
        (pa.array([Decimal("1.5"), Decimal("2.5")]), None),
        (pa.array([datetime.max.replace(tzinfo=UTC)] * 2, schemas.TIME), "9999"),
    ],
)
def test_bounds_are_never_too_narrow_and_stand_for_all_columns_or_for_none(
    tmp_path, values, bounds
):
    table = pa.table({"name": ["a", "b"], "value": values})
    DeltaTable.create(str(tmp_path), Schema.from_arrow(table.schema))
    lows = data_files.write([table], table.schema, str(tmp_path), 0).statistics["minValues"]
    if bounds is None:
        assert {} == lows
    else:
        assert {"name", "value"} == set(lows)
        assert str(lows["value"]).startswith(str(bounds if isinstance(bounds, str) else bounds[0]))


def test_several_writers_at_once_add_the_columns_that_an_older_table_lacks(lake):
    columns = list(schemas.SCHEMAS["rollouts"])
    older = [field for field in columns if field.name not in schemas.ADDED["rollouts"]]
    DeltaTable.create(f"{lake}/rollouts", Schema.from_arrow(pa.schema(older)))
    barrier = threading.Barrier(4)

    def open_to_append(number):
        barrier.wait()
        return snapshots.to_append(lake, "rollouts", f"filler-{number}")

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(open_to_append, range(4)))
    found = snapshots.open_table(f"{lake}/rollouts").schema().fields
    assert sorted(field.name for field in columns) == sorted(field.name for field in found)
