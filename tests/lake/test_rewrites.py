import multiprocessing
import random
import time
from datetime import UTC, datetime
from pathlib import Path

import deltalake
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mlproject.errors import UserError
from mlproject.lake import commits, data_files, queries, rewrites, schemas, snapshots, vacuum
from tests.support.lakes import image_id

WHEN = datetime(2026, 1, 2, tzinfo=UTC)


def no_spark():
    raise AssertionError("no Spark is needed for little")


def add(lake, numbers, filler="ingest", content=b"x"):
    """Images in one data file; whether that was committed."""
    now = datetime.now(UTC)
    facts = {"size_bytes": len(content), "modified_at": now, "ingested_at": now, "label": "daisy"}
    rows = [
        {"path": f"/{n}.jpg", "image_id": image_id(n), "content": content, **facts} for n in numbers
    ]
    table = pa.Table.from_pylist(rows, schema=schemas.SCHEMAS["images"])
    return commits.append_rows(table, snapshots.to_append(lake, "images", filler))


def paths(lake):
    return queries.query(lake, "SELECT path FROM images ORDER BY path", ["images"])["path"]


def active(lake):
    return {file.path for file in snapshots.active_files(snapshots.open_table(f"{lake}/images"))}


def log_of(lake, version):
    return Path(lake, "images/_delta_log", f"{version:020}.json").read_text(encoding="utf-8")


def test_an_erasure_writes_anew_only_the_files_that_hold_a_row(lake):
    for start in (0, 10, 20):
        add(lake, range(start, start + 10))
    before = active(lake)
    done = rewrites.erase_rows(f"{lake}/images", [image_id(3), image_id(14)], no_spark)
    assert (2, 2, 2) == (done.rows_removed, done.files_removed, done.files_added)
    assert 1 == len(before & active(lake))
    left = [f"/{n}.jpg" for n in range(30) if n not in (3, 14)]
    assert sorted(left) == paths(lake).to_pylist()
    assert image_id(3) not in log_of(lake, done.table_version)
    assert "/3.jpg" not in log_of(lake, done.table_version)
    assert '"mlproject.operation":"erase"' in log_of(lake, done.table_version)


def test_a_file_of_which_no_row_is_left_has_no_successor(lake):
    add(lake, [1])
    done = rewrites.erase_rows(f"{lake}/images", [image_id(1)], no_spark)
    assert (1, 1, 0) == (done.rows_removed, done.files_removed, done.files_added)
    assert [] == paths(lake).to_pylist()


def test_an_erasure_without_a_row_is_a_fence_all_the_same(lake):
    add(lake, [1])
    done = rewrites.erase_rows(f"{lake}/images", [image_id(2)], no_spark)
    assert (0, 0, 0) == (done.rows_removed, done.files_removed, done.files_added)
    assert done.table_version == snapshots.newest(lake, "images").erasures


def test_a_compaction_keeps_every_row_and_is_committed_without_data_change(lake):
    for number in range(5):
        add(lake, [number])
    done = rewrites.compact(f"{lake}/images", 2**20, 2**20, no_spark)
    assert (0, 5, 1) == (done.rows_removed, done.files_removed, done.files_added)
    assert [f"/{n}.jpg" for n in range(5)] == paths(lake).to_pylist()
    assert '"dataChange":true' not in log_of(lake, done.table_version)


def test_a_compaction_keeps_to_partitions_and_to_the_target_size(lake):
    sizes = [snapshots.ActiveFile(f"{n}", 10, 1, {"v": str(n % 2)}) for n in range(8)]
    groups = rewrites._groups(sizes, 20, 15)
    assert [["0", "2"], ["4", "6"], ["1", "3"], ["5", "7"]] == [
        [file.path for file in group] for group in groups
    ]


def test_columns_that_a_user_added_survive_a_rewrite(lake):
    add(lake, [1, 2])
    table = deltalake.DeltaTable(f"{lake}/images")
    field = deltalake.Schema.from_arrow(pa.schema([("camera", pa.string())])).fields
    table.alter.add_columns(field)
    row = {"path": "/3.jpg", "image_id": image_id(3), "camera": "old"}
    columns = schemas.SCHEMAS["images"].append(pa.field("camera", pa.string()))
    deltalake.write_deltalake(
        f"{lake}/images", pa.Table.from_pylist([row], schema=columns), mode="append"
    )
    rewrites.erase_rows(f"{lake}/images", [image_id(1)], no_spark)
    rewrites.compact(f"{lake}/images", 2**20, 2**20, no_spark)
    sql = "SELECT path, camera FROM images ORDER BY path"
    found = [{"path": "/2.jpg", "camera": None}, {"path": "/3.jpg", "camera": "old"}]
    assert found == queries.query(lake, sql, ["images"]).to_pylist()


def test_an_append_that_comes_between_is_searched_as_well(lake, monkeypatch):
    add(lake, [1])
    replace, late = rewrites.replace_files, iter([[2, 3]])

    def slow(*arguments, **options):
        for numbers in late:
            add(lake, numbers, "late")
        return replace(*arguments, **options)

    monkeypatch.setattr(rewrites, "replace_files", slow)
    ids = [image_id(1), image_id(2)]
    done = rewrites.erase_rows(f"{lake}/images", ids, no_spark)
    assert (2, 2, 1) == (done.rows_removed, done.files_removed, done.files_added)
    assert ["/3.jpg"] == paths(lake).to_pylist()


def test_of_two_rewrites_at_once_one_starts_again(lake, monkeypatch):
    for number in range(4):
        add(lake, [number])
    replace, late = rewrites.replace_files, iter([1])

    def slow(*arguments, **options):
        for _ in late:
            monkeypatch.setattr(rewrites, "replace_files", replace)
            rewrites.compact(f"{lake}/images", 2**20, 2**20, no_spark)
        return replace(*arguments, **options)

    monkeypatch.setattr(rewrites, "replace_files", slow)
    done = rewrites.erase_rows(f"{lake}/images", [image_id(0)], no_spark)
    assert (1, 1, 1) == (done.rows_removed, done.files_removed, done.files_added)
    assert ["/1.jpg", "/2.jpg", "/3.jpg"] == paths(lake).to_pylist()
    vacuum.erased_files(f"{lake}/images")
    assert active(lake) == {file.name for file in Path(lake, "images").glob("*.parquet")}


def test_a_table_with_deletion_vectors_is_refused_before_anything_is_written(lake, monkeypatch):
    add(lake, [1])
    table = snapshots.open_table(f"{lake}/images")
    version, some = table.version(), pa.table({"filepath": ["x"], "selection_vector": [[True]]})
    monkeypatch.setattr(deltalake.DeltaTable, "deletion_vectors", lambda self: some)
    with pytest.raises(UserError, match="REORG TABLE"):
        rewrites.erase_rows(f"{lake}/images", [image_id(1)], no_spark)
    assert version == snapshots.open_table(f"{lake}/images").version()


def test_row_groups_of_a_successor_are_small(lake):
    for number in range(20):
        add(lake, [number], content=bytes(2 * 2**20))
    rewrites.compact(f"{lake}/images", 2**30, 2**30, no_spark)
    rewrites.erase_rows(f"{lake}/images", [image_id(0)], no_spark)
    [name] = active(lake)
    groups = pq.ParquetFile(f"{lake}/images/{name}").metadata
    sizes = [groups.row_group(place).total_byte_size for place in range(groups.num_row_groups)]
    # What is read is a row group at most, and joins one that is not full yet.
    assert max(sizes) < 2 * data_files.ROW_GROUP_BYTES


def test_row_groups_of_small_images_are_enough_for_all_tasks(lake):
    for start in (0, 1000):
        add(lake, list(range(start, start + 1000)), content=b"small")
    rewrites.compact(f"{lake}/images", 2**30, 2**30, no_spark)
    [name] = active(lake)
    groups = pq.ParquetFile(f"{lake}/images/{name}").metadata
    rows = [groups.row_group(place).num_rows for place in range(groups.num_row_groups)]
    assert 2000 == sum(rows)
    assert max(rows) < 2 * data_files.ROW_GROUP_IMAGES


def _append(lake, name, seconds, done):
    until, count = time.monotonic() + seconds, 0
    while time.monotonic() < until:
        numbers = [f"{name}-{count}-{place}" for place in range(3)]
        if add(lake, numbers, f"filler{name % 2}"):
            done += numbers
            count += 1


def _compact(lake, seconds):
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        rewrites.compact(f"{lake}/images", 2**20, 2**20, no_spark)


def _erase(lake, seconds, gone):
    until, dice = time.monotonic() + seconds, random.Random(0)
    while time.monotonic() < until:
        sql = "SELECT image_id FROM images"
        there = queries.query(lake, sql, ["images"])["image_id"].to_pylist()
        if there:
            chosen = dice.sample(there, 1)
            rewrites.erase_rows(f"{lake}/images", chosen, no_spark)
            gone += chosen
            vacuum.erased_files(f"{lake}/images")


def test_appends_compactions_and_erasures_at_once_lose_double_and_bring_back_nothing(lake):
    snapshots.to_append(lake, "images", "ingest")
    context = multiprocessing.get_context("spawn")
    with context.Manager() as manager:
        done, gone = manager.list(), manager.list()
        work = [context.Process(target=_append, args=(lake, n, 6, done)) for n in range(3)]
        work += [context.Process(target=_compact, args=(lake, 6)) for _ in range(2)]
        work += [context.Process(target=_erase, args=(lake, 6, gone))]
        for process in work:
            process.start()
        for process in work:
            process.join()
        assert [0] * len(work) == [process.exitcode for process in work]
        added, erased = {image_id(n) for n in done}, set(gone)
    sql = "SELECT image_id FROM images"
    there = queries.query(lake, sql, ["images"])["image_id"].to_pylist()
    assert len(there) == len(set(there))
    assert added - erased == set(there)
    assert len(added) > 10
    assert erased
