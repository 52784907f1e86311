"""Saves the classes of Spark for the JVMs of the tests, once, as a user's first `score` does."""

import tempfile
from pathlib import Path

from mlproject.images import image_bytes, image_files
from mlproject.ingestion import new_images, source_listing
from mlproject.integrations.spark_session import fetch_jars, session
from mlproject.integrations.spark_start import end_jvm
from mlproject.lake import location, snapshots
from tests.conftest import photos


def main() -> None:
    """Runs what most tests run, in a session whose classes are saved at its end."""
    fetch_jars()
    end_jvm()
    with tempfile.TemporaryDirectory() as folder, session(archive=True) as spark:
        source = photos(Path(folder) / "source", 3)
        lake = location.locate_to_write(f"{folder}/lake")
        listing = source_listing.listing(str(source), settle=0)
        new_images.ingest_pending(spark, lake, listing)
        images = snapshots.required(lake, "images").read(spark)
        image_bytes.image_contents(images, images, image_files.counts(spark)).collect()


if __name__ == "__main__":
    main()
