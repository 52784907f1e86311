import shutil

import pytest
from pyspark.sql import functions as F

from mlproject.images import image_bytes, image_files
from mlproject.ingestion import new_images, source_listing
from mlproject.ingestion.new_images import IngestSettings
from mlproject.lake import snapshots
from mlproject.scoring import scorer
from tests.conftest import photo, photos
from tests.support.lakes import day, frame
from tests.support.local_servers import serving
from tests.support.s3_servers import KEYS, EmptyBucket
from tests.support.versions import register_colours

pytestmark = pytest.mark.spark


@pytest.fixture
def source(tmp_path):
    return photos(tmp_path / "source", 6, "red")


def ingest(spark, lake, source, **settings):
    return new_images.ingest_pending(
        spark, lake, source_listing.listing(str(source)), IngestSettings(**settings)
    )


def found(spark, lake):
    images = snapshots.required(lake, "images").read(spark)
    counts = image_files.counts(spark)
    rows = {
        row.image_id: row for row in image_bytes.image_contents(images, images, counts).collect()
    }
    by_path = {row.path.rsplit("/", 1)[1]: rows.get(row.image_id) for row in images.collect()}
    return by_path, counts.value["unreadable"]


def test_reference_rows_have_all_but_the_bytes_and_get_the_predictions_of_inline_rows(
    spark, lake, store, source, tmp_path
):
    version = register_colours("referred")
    ingest(spark, lake, source, content="reference")
    ingest(spark, str(tmp_path / "inline"), source)
    table = frame(lake, "images").sort_values("path")
    inline = frame(str(tmp_path / "inline"), "images").sort_values("path")
    assert table.content.isna().all()
    columns = ["path", "image_id", "size_bytes", "format", "width", "height", "label", "error"]
    assert table[columns].reset_index(drop=True).equals(inline[columns].reset_index(drop=True))
    assert 6 == scorer.score_pending(spark, lake, version).images
    assert 6 == scorer.score_pending(spark, str(tmp_path / "inline"), version).images
    answers = ["image_id", "label", "score", "error"]
    both = [
        snapshots.required(where, "predictions")
        .read(spark)
        .select(*answers)
        .orderBy("image_id")
        .collect()
        for where in (lake, str(tmp_path / "inline"))
    ]
    assert both[0] == both[1]
    assert {"red"} == {row.label for row in both[0]}


def test_a_reference_whose_file_is_gone_or_changed_is_an_error_row(spark, lake, store, source):
    version = register_colours("referred2")
    ingest(spark, lake, source, content="reference")
    (source / "red/000.jpg").unlink()
    (source / "red/001.jpg").write_bytes(photo((9, 9, 9), 77))
    done = scorer.score_pending(spark, lake, version)
    assert (6, 2, 0) == (done.images, done.errors, done.unreadable)
    answers = (
        snapshots.required(lake, "predictions").read(spark).where("error is not null").collect()
    )
    assert ["changed", "gone"] == sorted(row.error for row in answers)
    assert {None} == {row.label for row in answers}


def test_a_reference_is_read_from_any_path_that_has_its_bytes_now(spark, lake, source):
    ingest(spark, lake, source, content="reference")
    (source / "red/000.jpg").rename(source / "red/renamed.jpg")
    shutil.copy(source / "red/001.jpg", source / "red/copy.jpg")
    ingest(spark, lake, source, content="reference")
    (source / "red/copy.jpg").unlink()
    rows, _ = found(spark, lake)
    assert rows["000.jpg"].content == (source / "red/renamed.jpg").read_bytes()
    assert rows["copy.jpg"].content == (source / "red/001.jpg").read_bytes()


def test_a_reference_that_cannot_be_read_now_stays_pending(spark, lake, store, source, monkeypatch):
    version = register_colours("referred3")
    ingest(spark, lake, source, content="reference")
    path = source / "red/000.jpg"
    path.unlink()
    path.mkdir()  # root reads files of any mode
    assert 1 == (done := scorer.score_pending(spark, lake, version)).unreadable
    assert (5, 0) == (done.images, done.errors)
    path.rmdir()
    assert 1 == scorer.score_pending(spark, lake, version).images


def test_references_to_a_missing_bucket_stay_pending(spark, lake, source, monkeypatch):
    ingest(spark, lake, source, content="reference")
    images = snapshots.required(lake, "images").read(spark)
    with serving(EmptyBucket("there")) as url:
        for name, value in {**KEYS, "AWS_ENDPOINT_URL": url}.items():
            monkeypatch.setitem(spark.sparkContext.environment, name, value)
        for bucket, errors, unreadable in (("there", ["gone"] * 6, 0), ("nowhere", [], 6)):
            moved = images.withColumn("path", F.concat(F.lit(f"s3://{bucket}"), "path"))
            counts = image_files.counts(spark)
            fetched = image_bytes.image_contents(moved, moved, counts).collect()
            assert errors == [row.error for row in fetched]
            assert unreadable == counts.value["unreadable"]


def test_a_reference_whose_bytes_are_in_another_row_needs_no_file(spark, lake, source, tmp_path):
    ingest(spark, lake, source, content="reference")
    content = (source / "red/000.jpg").read_bytes()
    copies = photos(tmp_path / "copies", 2, "green")
    for name in ("one.jpg", "two.jpg"):
        (copies / name).write_bytes(content)
    ingest(spark, lake, copies)
    for folder in (source, copies):
        shutil.rmtree(folder)
    images = snapshots.required(lake, "images").read(spark)
    asked = image_bytes.references(images)
    fetched = image_bytes.image_contents(asked, images, image_files.counts(spark)).collect()
    assert [content] == [row.content for row in fetched if row.error is None]
    assert ["gone"] * 5 == [row.error for row in fetched if row.error]


def test_auto_stores_the_bytes_of_small_files_and_refers_to_large_ones(spark, lake, source):
    (source / "large.png").write_bytes(photo((1, 2, 3)) + bytes(50_000))
    ingest(spark, lake, source, content="auto", max_inline_bytes=20_000)
    images = snapshots.required(lake, "images").read(spark)
    assert ["large.png"] == [
        row.path.rsplit("/", 1)[1] for row in image_bytes.references(images).collect()
    ]
    rows, _ = found(spark, lake)
    assert (source / "large.png").read_bytes() == rows["large.png"].content
    assert (source / "red/000.jpg").read_bytes() == rows["000.jpg"].content


def test_auto_refers_to_all_files_when_they_are_large_on_average(spark, lake, source):
    with (source / "huge.jpg").open("wb") as file:
        file.write(photo((1, 2, 3)))
        file.truncate(800_000_000)
    ingest(spark, lake, source, content="auto")
    images = snapshots.required(lake, "images").read(spark)
    assert 7 == image_bytes.references(images).count()
    rows, _ = found(spark, lake)
    assert (None, "too_many_bytes") == (rows["huge.jpg"].content, rows["huge.jpg"].error)


def test_files_of_inline_rows_are_not_read_to_find_references(spark, lake, source):
    ingest(spark, lake, source)
    assert [] == image_bytes.references(snapshots.required(lake, "images").read(spark)).inputFiles()


def test_thumbnails_are_made_in_the_same_pass(spark, lake, source):
    (source / "no.jpg").write_bytes(b"no image")
    ingest(spark, lake, source, thumbnail_px=32)
    rows = snapshots.required(lake, "images").read(spark).orderBy(F.desc("path")).collect()
    assert all(row.thumbnail.startswith(b"\xff\xd8") for row in rows if row.error is None)
    assert [None] == [row.thumbnail for row in rows if row.error]


def test_files_with_all_bytes_are_found_in_the_log_by_the_time_of_their_ingest(
    spark, lake, tmp_path
):
    for number, content in enumerate(("inline", "inline", "reference")):
        ingest(spark, lake, photos(tmp_path / str(number), 2, "red", seed=number), content=content)
    times = sorted(frame(lake, "images")["ingested_at"].unique())
    images = snapshots.required(lake, "images")

    def files(first, last):
        return set(image_bytes.inline_files(images, times[first], times[last]))

    assert 2 == len(files(0, 0) | files(1, 1)) == len(files(0, 0)) + len(files(1, 1))
    assert files(0, 1) == files(0, 0) | files(1, 1)
    assert set() == files(1, 2) == files(2, 2)


def test_a_table_with_deletion_vectors_is_read_by_delta(spark, lake, store, source):
    version = register_colours("deleted")
    ingest(spark, lake, source)
    table = f"delta.`{lake}/images`"
    spark.sql(f"ALTER TABLE {table} SET TBLPROPERTIES (delta.enableDeletionVectors = true)")
    [first, *_] = frame(lake, "images")["image_id"]
    spark.sql(f"DELETE FROM {table} WHERE image_id = '{first}'")
    images = snapshots.required(lake, "images")
    assert 5 == images.read(spark).count()
    assert [] == image_bytes.inline_files(images, day(1), day(1000))
    assert 5 == scorer.score_pending(spark, lake, version).images


@pytest.mark.parametrize("name", ["a b", "[1]*?{2,3}", "100% ü", "day=1"])
def test_files_are_read_from_folders_of_any_name(spark, store, source, tmp_path, name):
    version = register_colours("anywhere")
    lake = str(tmp_path / name / "lake")
    ingest(spark, lake, source)
    result = scorer.score_pending(spark, lake, version)
    assert (6, 0) == (result.images, result.errors)
