"""A lake that holds nine files of eight contents, one of them secret, all scored."""

import shutil
from pathlib import Path

import pytest

from mlproject.images import thumbnails
from mlproject.ingestion import new_images, source_listing
from mlproject.lake import location
from mlproject.scoring import scorer
from tests.conftest import photo, photos
from tests.support.versions import register_colours

SECRET = photo((200, 30, 30), 99, (160, 120))  # large enough that its middle is its own
THUMBNAIL = thumbnails.jpeg(SECRET, 32)
SLICES = (SECRET[len(SECRET) // 2 :][:64], THUMBNAIL[-48:-8])


@pytest.fixture(scope="module")
def version(store):
    return register_colours("erased")


@pytest.fixture(scope="module")
def kept(spark, version, tmp_path_factory) -> Path:
    """A folder with nine files of eight contents, and a lake that holds them, all scored."""
    folder = tmp_path_factory.mktemp("kept")
    source = photos(folder / "source", 4, "red")
    photos(source, 3, "green", seed=1)
    for name in ("red/secret.jpg", "green/copy.jpg"):
        (source / name).write_bytes(SECRET)
    lake = location.locate_to_write(str(folder / "lake"))
    ingest(spark, lake, source)
    scorer.score_pending(spark, lake, version)
    source.rename(folder / "files")
    return folder


@pytest.fixture
def source(kept) -> Path:
    """The files where the lake found them, as it found them."""
    shutil.rmtree(kept / "source", ignore_errors=True)
    return shutil.copytree(kept / "files", kept / "source")


@pytest.fixture
def filled(kept, lake, source) -> str:
    """A lake of one's own, with all these files."""
    shutil.copytree(kept / "lake", lake, dirs_exist_ok=True)
    return lake


def ingest(spark, lake, folder, **options):
    settings = new_images.IngestSettings(thumbnail_px=32, **options)
    return new_images.ingest_pending(spark, lake, source_listing.listing(str(folder)), settings)
