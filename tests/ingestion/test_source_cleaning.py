import os
import shutil

import pytest

from mlproject.errors import UserError
from mlproject.ingestion import new_images, source_cleaning, source_listing
from mlproject.ingestion.new_images import IngestSettings
from mlproject.lake import snapshots
from tests.conftest import photo, photos


@pytest.fixture
def source(tmp_path):
    return photos(tmp_path / "source", 4, "red")


def names(folder):
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def clean(spark, lake, source, move_to="", after_days=0.0):
    listed = source_listing.listing(str(source))
    files = source_cleaning.ready(spark, lake, listed, after_days).toArrow()
    cleaned, why = source_cleaning.clean(listed.source, files, move_to)
    assert "" == why
    return cleaned


def ingest(spark, lake, source, **settings):
    new_images.ingest_pending(
        spark, lake, source_listing.listing(str(source)), IngestSettings(**settings)
    )


@pytest.mark.spark
def test_only_files_whose_bytes_are_in_the_table_as_listed_are_deleted(spark, lake, source):
    ingest(spark, lake, source)
    (source / "red/000.jpg").write_bytes(photo((1, 1, 1), 5))  # overwritten
    os.utime(source / "red/001.jpg", (1, 1))  # touched
    (source / "red/new.jpg").write_bytes(photo((1, 1, 1), 6))
    assert 0 == clean(spark, lake, source, after_days=1)
    assert 2 == clean(spark, lake, source)
    assert ["000.jpg", "001.jpg", "new.jpg"] == names(source)
    ingest(spark, lake, source)
    assert 3 == clean(spark, lake, source)


@pytest.mark.spark
def test_files_that_rows_refer_to_stay(spark, lake, source):
    ingest(spark, lake, source, content="reference")
    assert 0 == clean(spark, lake, source)
    assert 4 == len(names(source))


@pytest.mark.spark
def test_moved_files_keep_their_place_and_overwrite_nothing(spark, lake, source, tmp_path):
    away = tmp_path / "away"
    (away / "red").mkdir(parents=True)
    (away / "red/000.jpg").write_bytes(b"another")
    contents = {path.name: path.read_bytes() for path in (source / "red").iterdir()}
    ingest(spark, lake, source)
    assert 4 == clean(spark, lake, source, str(away))
    assert [] == names(source)
    assert ["000.jpg", "000~1.jpg", "001.jpg", "002.jpg", "003.jpg"] == names(away)
    assert contents["000.jpg"] == (away / "red/000~1.jpg").read_bytes()
    assert b"another" == (away / "red/000.jpg").read_bytes()


def test_a_file_that_changes_after_the_listing_stays(source):
    files = source_listing.listing(str(source)).files
    (source / "red/000.jpg").write_bytes(b"x" * files["size_bytes"][0].as_py())
    assert (3, "") == source_cleaning.clean(str(source), files)
    assert ["000.jpg"] == names(source)


@pytest.mark.parametrize("inside", ["", "red", "red/deeper"])
def test_a_folder_in_the_source_is_no_place_to_move_to(source, inside):
    with pytest.raises(UserError, match="lies in the source"):
        source_cleaning.check(str(source), "lake", "move", str(source / inside))


def test_moving_takes_a_folder_outside_the_lake(source, lake):
    with pytest.raises(UserError, match="clean_to=FOLDER"):
        source_cleaning.check(str(source), lake, "move", "")
    with pytest.raises(UserError, match="lies in the lake"):
        source_cleaning.check(str(source), lake, "move", f"{lake}/away")


def test_a_file_that_cannot_be_moved_stays_and_the_others_go(source, tmp_path):
    (source / "blue").mkdir()
    (source / "blue/a.jpg").write_bytes(photo((1, 1, 1), 5))
    (tmp_path / "away").mkdir()
    (tmp_path / "away/blue").touch()  # where a folder would have to be
    cleaned, why = source_cleaning.clean(
        str(source), source_listing.listing(str(source)).files, str(tmp_path / "away")
    )
    assert (4, True) == (cleaned, why.startswith(str(source / "blue/a.jpg")))
    assert ["a.jpg"] == names(source)


@pytest.mark.spark
def test_a_note_of_a_file_whose_bytes_are_in_the_table_no_more_is_no_reason(spark, lake, source):
    ingest(spark, lake, source)
    os.utime(source / "red/001.jpg", (1, 1))
    ingest(spark, lake, source)
    shutil.rmtree(f"{lake}/images")
    snapshots.to_append(lake, "images", "ingest")
    assert 0 == clean(spark, lake, source)
