"""Commands that write one local lake at once, each a process of its own."""

import shutil
import time
from pathlib import Path

import pytest

from mlproject.lake import maintenance, queries, snapshots
from tests.conftest import output_of, photos, start_command
from tests.support.lakes import add_predictions
from tests.support.versions import register_colours

pytestmark = [pytest.mark.spark, pytest.mark.slow]

MB = 1024**2


@pytest.fixture
def lake(tmp_path, store) -> str:
    """A lake with 40 photos of ten ingests, so that there is something to compact."""
    source = tmp_path / "source"
    for number in range(8):
        photos(source, 5, "red", seed=number)
        (source / "red").rename(source / f"red{number}")
    output_of(start_command("ingest", "--source", "source", "--max_files", "4", cwd=tmp_path))
    return str(tmp_path / "lake")


def no_spark():
    raise AssertionError("no Spark is needed for little")


def rows(lake, sql, *tables):
    return queries.query(lake, sql, list(tables)).to_pylist()


@pytest.mark.thorough
def test_nothing_is_lost_doubled_or_brought_back(lake, tmp_path):
    source = tmp_path / "source"
    secret = source / "red0" / "001.jpg"
    content = secret.read_bytes()
    first, second = register_colours("at-once"), register_colours("at-once", reverse=True)
    photos(source, 6, "green", seed=99)
    shutil.copy(source / "green" / "000.jpg", source / "copy.jpg")
    (tmp_path / "labels.csv").write_text("path,label\nred1/001.jpg,rose\ngreen/001.jpg,tulip\n")
    failed = [row["image_id"] for row in rows(lake, "SELECT image_id FROM images", "images")][:15]
    add_predictions(lake, first, failed, error="model_failed")
    begun = snapshots.required(lake, "predictions").version
    batches = ("--batch_images", "5")
    processes = [
        start_command("score", "--model", first.uri, *batches, cwd=tmp_path),
        start_command("score", "--model", first.uri, *batches, "--retry", "errors", cwd=tmp_path),
        start_command("score", "--model", first.uri, *batches, "--retry", "errors", cwd=tmp_path),
        start_command("score", "--model", second.uri, *batches, cwd=tmp_path),
        start_command("ingest", "--source", "source", "--labels", "labels.csv", cwd=tmp_path),
        start_command("ingest", "--source", "source", "--labels", "labels.csv", cwd=tmp_path),
    ]
    while snapshots.required(lake, "predictions").version == begun:
        time.sleep(0.1)
        assert any(process.poll() is None for process in processes)
    processes.append(start_command("erase", "--path", str(secret), cwd=tmp_path))
    while any(process.poll() is None for process in processes):
        for table in ("images", "predictions"):
            maintenance.compact_small(f"{lake}/{table}", 64 * MB, no_spark)
        time.sleep(0.2)
    for process in processes:
        assert 0 == process.returncode, process.stdout.read()
    for version in (first, second):  # what came too late for the others
        output_of(start_command("score", "--model", version.uri, cwd=tmp_path))

    images = rows(lake, "SELECT path, image_id FROM images", "images")
    assert len(images) == len({tuple(row.values()) for row in images})
    paths = {row["path"] for row in images}
    every = {str(file) for file in source.rglob("*.jpg")} - {str(secret)}
    assert every == paths
    ids = sorted({row["image_id"] for row in images})
    for version in (first, second):
        sql = f"SELECT image_id FROM predictions WHERE model_id = '{version.model_id}'"
        assert ids == sorted(row["image_id"] for row in rows(lake, sql, "predictions"))
    assert [] == rows(lake, "SELECT * FROM predictions WHERE error IS NOT NULL", "predictions")
    sql = "SELECT path, label FROM labels ORDER BY path"
    given = {row["path"]: row["label"] for row in rows(lake, sql, "labels")}
    assert given.get(str(source / "red1" / "001.jpg")) == "rose"
    files = (file for file in Path(lake).rglob("*") if file.is_file())
    assert [] == [file for file in files if content[len(content) // 2 :][:64] in file.read_bytes()]
