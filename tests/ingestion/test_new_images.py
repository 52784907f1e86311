import gzip
import os
import shutil
import threading
from pathlib import Path
from types import SimpleNamespace

import pyarrow.parquet as pq
import pytest
from pyspark.sql import functions as F

from mlproject.images import image_files
from mlproject.ingestion import known_files, new_images, source_listing
from mlproject.ingestion.new_images import IngestSettings
from mlproject.lake import queries, snapshots
from mlproject.lake.schemas import SCHEMAS
from tests.conftest import photo, photos

pytestmark = pytest.mark.spark


def ingest(spark, lake, folder, settings=IngestSettings(), **options):  # noqa: B008 - frozen
    return new_images.ingest_pending(
        spark, lake, source_listing.listing(str(folder)), settings, **options
    )


def rows(lake):
    found = queries.query(lake, "SELECT * FROM images", ["images"])
    ordered = found.sort_by([("path", "ascending"), ("ingested_at", "ascending")])
    return [SimpleNamespace(**row) for row in ordered.to_pylist()]


def test_each_file_is_a_row_with_its_bytes_hash_size_and_label(spark, lake, tmp_path):
    photos(tmp_path / "source", 3, "red")
    done = ingest(spark, lake, tmp_path / "source")
    first = snapshots.required(lake, "images").read(spark).orderBy("path").first()
    content = (tmp_path / "source/red/000.jpg").read_bytes()
    assert (3, 3, 0) == (done.listed, done.rows, done.errors)
    assert str(tmp_path / "source/red/000.jpg") == first.path
    assert content == bytes(first.content)
    assert ("JPEG", 48, 40, "red", None) == (*first[4:8], first.error)
    assert len(content) == first.size_bytes


def test_a_second_ingest_commits_nothing(spark, lake, tmp_path):
    photos(tmp_path / "source", 3)
    first = ingest(spark, lake, tmp_path / "source")
    second = ingest(spark, lake, tmp_path / "source")
    assert (0, first.table_version) == (second.rows, second.table_version)


def test_new_and_overwritten_files_are_rows_and_the_old_rows_stay(spark, lake, tmp_path):
    photos(tmp_path / "source", 2)
    ingest(spark, lake, tmp_path / "source")
    (tmp_path / "source/red/001.jpg").write_bytes(photo((9, 9, 9), 77))
    photos(tmp_path / "source", 1, "blue")
    assert 2 == ingest(spark, lake, tmp_path / "source").rows
    names = [Path(row.path).parent.name + "/" + Path(row.path).name for row in rows(lake)]
    assert ["blue/000.jpg", "red/000.jpg", "red/001.jpg", "red/001.jpg"] == names


def test_a_file_touched_but_not_changed_is_no_second_row_and_no_commit(spark, lake, tmp_path):
    photos(tmp_path / "source", 2)
    first = ingest(spark, lake, tmp_path / "source")
    os.utime(tmp_path / "source/red/000.jpg", (1e9, 1e9))
    second = ingest(spark, lake, tmp_path / "source")
    assert {"unchanged": 1} == second.left
    assert first.table_version == second.table_version
    assert 2 == len(rows(lake))
    # Nor is it read again: a third look finds nothing to look at.
    third = ingest(spark, lake, tmp_path / "source")
    assert {} == third.left
    [noted] = snapshots.required(lake, "files").read(spark).collect()
    assert ("unchanged", rows(lake)[0].image_id) == (noted.state, noted.image_id)


def test_a_file_that_goes_back_to_old_bytes_is_no_new_row_and_is_noted(spark, lake, tmp_path):
    photos(tmp_path / "source", 1)
    file = tmp_path / "source/red/000.jpg"
    first = file.read_bytes()
    for content in (first, photo((9, 9, 9), 5), first):
        file.write_bytes(content)
        done = ingest(spark, lake, tmp_path / "source")
    assert (0, {"unchanged": 1}) == (done.rows, done.left)
    assert 2 == len(rows(lake))
    assert {} == ingest(spark, lake, tmp_path / "source").left


def test_a_removed_file_is_marked_with_the_option_and_present_again_when_it_is_back(
    spark, lake, tmp_path
):
    for source in ("source", "source2"):
        photos(tmp_path / source, 3, seed=len(source))
        ingest(spark, lake, tmp_path / source)
    file, aside = tmp_path / "source/red/000.jpg", tmp_path / "aside.jpg"

    def look() -> tuple[int, int]:
        listed = source_listing.listing(str(tmp_path / "source"), include="jpg,none")
        new_images.ingest_pending(spark, lake, listed)
        marked = new_images.mark_missing(lake, listed)
        whole = (snapshots.rows(spark, lake, name) for name in ("images", "files"))
        return marked, known_files.present(*whole).count()

    file.rename(aside)
    shutil.rmtree(tmp_path / "source2")
    assert (1, 5) == look()
    assert (0, 5) == look()
    aside.rename(file)
    assert (0, 6) == look()
    assert 6 == len(rows(lake))
    file.write_bytes(photo((9, 9, 9), 5))
    assert (0, 6) == look()
    file.rename(file.with_suffix(".txt"))
    assert (1, 5) == look()


def test_a_file_that_goes_back_to_an_earlier_listing_is_what_lies_there_now(spark, lake, tmp_path):
    source = photos(tmp_path / "source", 2)
    file, backup = source / "red/000.jpg", tmp_path / "backup.jpg"
    shutil.copy2(file, backup)
    ingest(spark, lake, source)
    file.write_bytes(photo((9, 9, 9), 5))
    ingest(spark, lake, source)
    backup.rename(file)
    assert {"unchanged": 1} == ingest(spark, lake, source).left
    assert {} == ingest(spark, lake, source).left
    whole = (snapshots.rows(spark, lake, name) for name in ("images", "files"))
    [now] = known_files.present(*whole).where(F.col("path") == str(file)).collect()
    assert file.read_bytes() == bytes(now.content)


def test_a_dropped_table_is_filled_again_with_touched_files_too(spark, lake, tmp_path):
    source = photos(tmp_path / "source", 3)
    ingest(spark, lake, source)
    os.utime(source / "red/000.jpg", (1e9, 1e9))
    assert {"unchanged": 1} == ingest(spark, lake, source).left
    shutil.rmtree(Path(lake, "images"))
    listed = source_listing.listing(str(source))
    assert (3, 0) == ((planned := known_files.plan(lake, listed)).new, planned.changed)
    assert 3 == ingest(spark, lake, source).rows
    assert 3 == len(rows(lake))


def test_hashed_files_are_recorded_in_micro_batches_and_stopped_between(spark, lake, tmp_path):
    source = photos(tmp_path / "source", 5)
    ingest(spark, lake, source)
    for file in (source / "red").iterdir():
        os.utime(file, (1e9, 1e9))
    asked = iter([False, True])
    waves = IngestSettings(max_files=2)
    first = ingest(spark, lake, source, waves, stop=lambda: next(asked, True))
    assert {"unchanged": 2} == first.left
    assert {"unchanged": 3} == ingest(spark, lake, source, waves).left


def test_a_plan_counts_what_is_to_be_read_and_writes_nothing(spark, lake, tmp_path):
    photos(tmp_path / "source", 3)
    (tmp_path / "source/empty.jpg").touch()

    def plan():
        return known_files.plan(lake, source_listing.listing(str(tmp_path / "source")))

    first = plan()
    assert (3, 3, 0, {"empty": 1}) == (first.listed, first.new, first.changed, first.left)
    assert not Path(lake, "images").exists()
    ingest(spark, lake, tmp_path / "source")
    changed = photo((9, 9, 9), 5)
    (tmp_path / "source/red/001.jpg").write_bytes(changed)
    (tmp_path / "source/red/new.jpg").write_bytes(changed)
    version = snapshots.to_append(lake, "images", "ingest").version
    planned = plan()
    assert (4, 1, 1) == (planned.listed, planned.new, planned.changed)
    assert 2 * len(changed) == planned.size_bytes
    assert version == snapshots.to_append(lake, "images", "ingest").version


def test_a_copy_under_another_name_is_a_row_of_the_same_image(spark, lake, tmp_path):
    photos(tmp_path / "source", 1)
    shutil.copy(tmp_path / "source/red/000.jpg", tmp_path / "source/copy.jpg")
    ingest(spark, lake, tmp_path / "source")
    copied, original = rows(lake)
    assert original.image_id == copied.image_id
    assert (None, "red") == (copied.label, original.label)


def test_a_file_that_is_no_image_is_a_row_with_an_error(spark, lake, tmp_path):
    (tmp_path / "source").mkdir()
    (tmp_path / "source/words.jpg").write_text("no image at all")
    assert 1 == ingest(spark, lake, tmp_path / "source").errors
    assert ("unsupported_format", None) == (rows(lake)[0].error, rows(lake)[0].width)


def test_files_that_cannot_be_read_make_no_commit_and_stay_pending(spark, lake, tmp_path):
    photos(tmp_path / "source", 3)
    listed = source_listing.listing(str(tmp_path / "source"))
    (tmp_path / "source/red/000.jpg").unlink()
    (tmp_path / "source/red/001.jpg").write_bytes(b"another length")
    (tmp_path / "source/red/002.jpg").unlink()
    (tmp_path / "source/red/002.jpg").mkdir()
    done = new_images.ingest_pending(spark, lake, listed)
    assert {"gone": 1, "changing": 1, "unreadable": 1} == done.left
    assert (0, 0) == (done.rows, done.table_version)


def test_a_compressed_file_is_taken_as_it_lies(spark, lake, tmp_path):
    (tmp_path / "source").mkdir()
    (tmp_path / "source/a.jpg.gz").write_bytes(gzip.compress(photo((1, 2, 3))))
    new_images.ingest_pending(
        spark, lake, source_listing.listing(str(tmp_path / "source"), include="*")
    )
    assert "unsupported_format" == rows(lake)[0].error


def test_any_name_and_any_case_of_suffix_is_ingested(spark, lake, tmp_path):
    names = ["a b.JPG", "%41.Png", "#?.jpeg", "[1].jpg", "grüß 😀.jpg", "new\nline.jpg", "'\".jpg"]
    (tmp_path / "source").mkdir()
    for number, name in enumerate(names):
        (tmp_path / "source" / name).write_bytes(photo((1, 2, 3), number))
    ingest(spark, lake, tmp_path / "source")
    assert sorted(names) == sorted(Path(row.path).name for row in rows(lake))


def test_micro_batches_are_commits_of_a_bounded_number_of_files(spark, lake, tmp_path):
    photos(tmp_path / "source", 5)
    calls = []
    done = ingest(
        spark, lake, tmp_path / "source", IngestSettings(max_files=2), on_batch=calls.append
    )
    assert [(2, 5), (4, 5), (5, 5)] == [(at.files, at.all_files) for at in calls]
    assert calls[-1].size_bytes == calls[-1].all_bytes == done.size_bytes
    assert (5, 3) == (done.rows, done.table_version)


def test_two_ingests_at_once_make_no_row_twice(spark, lake, tmp_path):
    photos(tmp_path / "source", 40)
    listed = source_listing.listing(str(tmp_path / "source"))
    threads = [
        threading.Thread(
            target=new_images.ingest_pending,
            args=(spark.newSession(), lake, listed),
            kwargs={"settings": IngestSettings(max_files=10)},
        )
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(listed.files["path"].to_pylist()) == [row.path for row in rows(lake)]


def test_content_lies_uncompressed_in_row_groups_of_a_bounded_size(spark, lake, tmp_path):
    (tmp_path / "source").mkdir()
    for number in range(48):
        noise = os.urandom(1024**2)
        (tmp_path / f"source/{number:02}.jpg").write_bytes(photo((1, 2, 3), number) + noise)
    ingest(spark, lake, tmp_path / "source")
    for file in Path(lake, "images").glob("*.parquet"):
        metadata = pq.ParquetFile(file).metadata
        groups = [metadata.row_group(index) for index in range(metadata.num_row_groups)]
        column = metadata.schema.names.index("content")
        assert {"UNCOMPRESSED"} == {group.column(column).compression for group in groups}
        assert max(group.total_byte_size for group in groups) < 20 * 1024**2


def test_row_groups_of_small_images_are_enough_for_all_tasks():
    rows = [{"path": str(number), "content": b"small"} for number in range(1100)]
    batches = image_files.in_batches(rows, SCHEMAS["images"])
    assert [512, 512, 76] == [batch.num_rows for batch in batches]


@pytest.mark.parametrize("content", ["inline", "reference"])
def test_hostile_files_are_all_rows_or_counted(spark, lake, shared, content):
    listed = source_listing.listing(str(shared / "hostile"), include="*")
    done = new_images.ingest_pending(spark, lake, listed, IngestSettings(content=content))
    files = [path for path in (shared / "hostile").rglob("*") if path.is_file()]
    hidden = [path for path in files if "_licences" in path.parts]
    empty = [path for path in files if path.stat().st_size == 0]
    assert 113 == len(files) - len(hidden) - 1  # and a list of them
    assert {"skipped": len(hidden), "empty": len(empty)} == done.left
    assert len(files) - len(hidden) - len(empty) == done.rows
