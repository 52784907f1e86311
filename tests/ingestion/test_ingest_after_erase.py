"""What `ingest` does with files whose contents were erased."""

import shutil
from pathlib import Path

import pytest

from mlproject.erasure import erase
from mlproject.ingestion import known_files, new_images, source_listing
from mlproject.lake import spark_tables
from tests.conftest import photo, photos

pytestmark = pytest.mark.spark


@pytest.fixture
def source(spark, lake, tmp_path) -> Path:
    """Four photos that were ingested; the first was erased since."""
    folder = photos(tmp_path / "source", 4, "red")
    ingest(spark, lake, folder)
    erase.erase(spark, lake, erase.selection(path=str(folder / "red/000.jpg")))
    return folder


def ingest(spark, lake, folder, **options):
    settings = new_images.RowSettings(**options)
    return new_images.ingest_pending(spark, lake, source_listing.listing(str(folder)), settings)


def versions(spark, lake) -> list[int]:
    return [spark_tables.snapshot(spark, lake, name).version for name in ("images", "files")]


def test_an_erased_file_is_left_and_noted_once_and_not_read_again(spark, lake, source):
    shutil.copy(source / "red/000.jpg", source / "copy.jpg")
    first = ingest(spark, lake, source)
    assert (0, {"erased": 2}) == (first.rows, first.left)
    before = versions(spark, lake)
    assert {} == ingest(spark, lake, source).left
    assert before == versions(spark, lake)
    assert 0 == known_files.plan(lake, source_listing.listing(str(source))).new


def test_among_many_new_files_the_erased_are_left_and_the_others_taken(
    spark, lake, source, monkeypatch
):
    monkeypatch.setattr(new_images, "FEW", 0)
    photos(source, 3, "green", seed=1)
    erased = (source / "red/000.jpg").read_bytes()
    (source / "green/same.jpg").write_bytes(erased)
    (source / "green/as_long.jpg").write_bytes(erased[:-3] + b"\x01\x02\x03")
    done = ingest(spark, lake, source)
    assert (4, {"erased": 2}) == (done.rows, done.left)
    assert {} == ingest(spark, lake, source).left


def test_a_hash_of_unknown_size_is_refused_as_well(spark, lake, source, monkeypatch):
    monkeypatch.setattr(new_images, "FEW", 0)
    since = spark_tables.snapshot(spark, lake, "erased", "test")
    (source / "new.jpg").write_bytes(photo((1, 2, 3), 7))
    looked = source_listing.listing(str(source)).files
    assert 5 == looked.num_rows
    row = spark.sql(f"SELECT sha2(unhex('{photo((1, 2, 3), 7).hex()}'), 256) image_id")
    noted = row.selectExpr("image_id", "CAST(NULL AS BIGINT) size_bytes", "current_timestamp() at")
    spark_tables.append(noted, since)
    assert {"erased": 2} == ingest(spark, lake, source).left


def test_erased_contents_come_back_when_asked_and_then_count_as_wanted(spark, lake, source):
    ingest(spark, lake, source)
    listed = source_listing.listing(str(source))
    assert 1 == known_files.plan(lake, listed, include_erased=True).new
    assert 1 == ingest(spark, lake, source, include_erased=True).rows
    assert {} == ingest(spark, lake, source).left
    shutil.copy(source / "red/000.jpg", source / "copy.jpg")
    assert 1 == ingest(spark, lake, source).rows
    erase.erase(spark, lake, erase.selection(path=str(source / "copy.jpg")))
    assert {"erased": 2} == ingest(spark, lake, source).left
    assert 3 == spark_tables.read(spark, lake, "images").count()
