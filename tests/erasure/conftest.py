"""A lake that holds nine files of eight contents, one of them secret, all scored."""

import shutil
from pathlib import Path

import pytest

from mlproject.erasure import selection
from mlproject.images import thumbnails
from mlproject.ingestion import new_images, source_listing
from mlproject.lake import location, queries
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


def holders(lake, slices=SLICES) -> list[Path]:
    """The files of a lake that hold the middle of the secret photo, or its thumbnail."""
    files = (file for file in Path(lake).rglob("*") if file.is_file())
    return [file for file in files if any(part in file.read_bytes() for part in slices)]


def secret(source) -> selection.Selection:
    return selection.selection(path=str(source / "red" / "secret.jpg"))


def rows(lake, table) -> int:
    return queries.query(lake, f"SELECT 1 FROM {table}", [table]).num_rows


def no_spark():
    raise AssertionError("no Spark is needed for little")


def counts(lake) -> tuple[int, int]:
    return rows(lake, "images"), rows(lake, "predictions")
