"""What `ingest` does with files whose contents were erased."""

import hashlib
import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest

from mlproject.erasure import removal, selection
from mlproject.ingestion import known_files, new_images, source_listing
from mlproject.lake import snapshots
from tests.conftest import photo, photos
from tests.support.lakes import add

pytestmark = pytest.mark.spark


@pytest.fixture
def source(spark, lake, tmp_path) -> Path:
    """Four photos that were ingested; the first was erased since."""
    folder = photos(tmp_path / "source", 4, "red")
    ingest(spark, lake, folder)
    removal.erase_images(lake, selection.selection(path=str(folder / "red/000.jpg")), lambda: spark)
    return folder


def ingest(spark, lake, folder, **options):
    settings = new_images.IngestSettings(**options)
    return new_images.ingest_pending(spark, lake, source_listing.listing(str(folder)), settings)


def versions(spark, lake) -> list[int]:
    return [snapshots.required(lake, name).version for name in ("images", "files")]


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
    (source / "new.jpg").write_bytes(photo((1, 2, 3), 7))
    looked = source_listing.listing(str(source)).files
    assert 5 == looked.num_rows
    image_id = hashlib.sha256(photo((1, 2, 3), 7)).hexdigest()
    add(lake, "erased", {"image_id": image_id, "at": datetime.now(UTC)})
    assert {"erased": 2} == ingest(spark, lake, source).left


def test_erased_contents_come_back_with_include_erased_and_then_stay(spark, lake, source):
    ingest(spark, lake, source)
    listed = source_listing.listing(str(source))
    assert 1 == known_files.plan(lake, listed, include_erased=True).new
    assert 1 == ingest(spark, lake, source, include_erased=True).rows
    assert {} == ingest(spark, lake, source).left
    shutil.copy(source / "red/000.jpg", source / "copy.jpg")
    assert 1 == ingest(spark, lake, source).rows
    removal.erase_images(lake, selection.selection(path=str(source / "copy.jpg")), lambda: spark)
    assert {"erased": 2} == ingest(spark, lake, source).left
    assert 3 == snapshots.rows(spark, lake, "images").count()
