"""What a writer has in hand while its image is erased stays out of the lake."""

import signal
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest

from mlproject.erasure import removal
from mlproject.errors import UserError
from mlproject.lake import commits, queries, schemas, snapshots
from mlproject.scoring import coverage, scorer
from tests.erasure.conftest import counts, holders, no_spark, secret
from tests.support.lakes import add_predictions
from tests.support.versions import register_colours

pytestmark = pytest.mark.spark

SLOW_WRITER = """
import os, signal, sys
import pyarrow as pa
from mlproject.erasure import removal, selection
from mlproject.lake import commits, data_files, queries, schemas, snapshots

lake, path, erased_at, killed = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4] == "True"
since, columns = snapshots.to_append(lake, "images", "late"), schemas.SCHEMAS["images"]
row = queries.query(lake, f"SELECT * FROM images WHERE path = '{path}'", ["images"])
row = row.select(columns.names).cast(columns)

def tables():
    for number in range(3):
        if number == erased_at:
            removal.erase_images(lake, selection.selection(path=path), None)
        yield row
    end()

def end():
    if killed:
        os.kill(os.getpid(), signal.SIGKILL)

file = data_files.write(tables(), columns, since.path, since.version)
end()
assert commits.append_files([file], since) is None
"""


def test_a_row_that_was_in_hand_while_its_image_was_erased_never_comes_into_a_table(filled, source):
    since = [snapshots.to_append(filled, table, "late") for table in ("images", "labels", "files")]
    predictions = snapshots.to_append(filled, "predictions", "late")
    sql = f"SELECT * FROM images WHERE path = '{source}/red/secret.jpg'"
    [row] = queries.query(filled, sql, ["images"]).to_pylist()
    removal.erase_images(filled, secret(source), no_spark)
    for snapshot in since:
        columns = schemas.SCHEMAS[snapshot.table]
        known = {name: row[name] for name in columns.names if name in row}
        late = pa.Table.from_pylist([known], schema=columns)
        assert commits.append_rows(late, snapshot) is None
    assert [] == holders(filled)
    assert snapshots.newest(filled, "predictions").erasures > predictions.version


@pytest.mark.parametrize("killed", [False, True])
@pytest.mark.parametrize("erased_at", [0, 1])  # before its file is there, or while it is written
def test_a_slow_writers_file_holds_no_bytes_once_an_erase_has_returned(
    filled, source, erased_at, killed
):
    path = str(source / "red" / "secret.jpg")
    command = [sys.executable, "-c", SLOW_WRITER, filled, path, str(erased_at), str(killed)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert (-signal.SIGKILL if killed else 0) == done.returncode, done.stderr
    assert [] == holders(filled)
    assert (7, 7) == counts(filled)


def test_counts_of_a_version_of_the_tables_that_an_erasure_removes_are_those_of_the_next(
    filled, source, version
):
    def count(tables):
        if counts(filled) == (9, 8):
            removal.erase_images(filled, secret(source), no_spark)
        return coverage.count(tables, version).counts

    assert (7, 7, 0) == coverage.read_newest(filled, count)


@pytest.mark.parametrize("searched", ["pending_images", "failed_images"])
def test_a_scoring_searches_newer_tables_when_an_erasure_removes_the_files_of_its_own(
    spark, filled, source, searched, monkeypatch
):
    scoring = register_colours("searching")
    search, tables = getattr(scorer, searched), []
    ids = queries.query(filled, "SELECT DISTINCT image_id FROM images", ["images"])["image_id"]
    add_predictions(filled, scoring, ids.to_pylist(), error="model_failed")

    def erase_first(version, given, *arguments):
        tables.append(given)
        if len(tables) == 1:
            removal.erase_images(filled, secret(source), no_spark)
        return search(version, given, *arguments)

    monkeypatch.setattr(scorer, searched, erase_first)
    if searched == "failed_images":
        done = scorer.retry_errors(spark, filled, scoring, ["model_failed"])
        assert (7, 0) == (done.images, done.errors)
    else:
        assert 0 == scorer.score_pending(spark, filled, scoring).images
    assert 2 == len(tables)
    assert tables[0].images.version < tables[1].images.version
    assert (7, 14) == counts(filled)


def test_a_damaged_lake_is_no_older_version_of_one(filled, version):
    for file in Path(filled, "predictions").rglob("*.parquet"):
        file.unlink()
    with pytest.raises(UserError, match="cannot be read"):
        coverage.read_newest(filled, lambda tables: coverage.count(tables, version))
