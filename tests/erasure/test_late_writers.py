"""What a writer has in hand while its image is erased stays out of the lake."""

import signal
import subprocess
import sys

import pyarrow as pa
import pytest

from mlproject.erasure import removal
from mlproject.lake import commits, queries, schemas, snapshots
from tests.erasure.conftest import counts, holders, no_spark, secret

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
