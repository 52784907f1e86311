"""Data files of predictions as tasks write them, without Spark."""

import os
import subprocess
import sys
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mlproject.lake import commits, queries, snapshots
from mlproject.lake.schemas import SCHEMAS
from mlproject.scoring.prediction_files import NotWrittenError, described, writer

NAME = "odd name=1/ü%41"
PARTITION = {"model_name": NAME, "model_version": "3"}
COLUMNS = [column for column in SCHEMAS["predictions"] if column.name not in PARTITION]


def rows(count, *, error=None):
    """A batch of rows as Spark hands them to the task that writes them."""
    now = datetime(2026, 1, 1, tzinfo=UTC)
    row = {"label": "red", "score": 0.9, "top_labels": ["red"], "top_scores": [0.9], "error": error}
    facts = {"model_id": "m-1", "run_id": "run", "images_version": 4, "scored_at": now}
    columns = pa.schema([*COLUMNS, ("size_bytes", pa.int64())])
    listed = [{"image_id": f"{n:064}", "size_bytes": 100, **row, **facts} for n in range(count)]
    return pa.RecordBatch.from_pylist(listed, schema=columns)


def written(since, *batches):
    """The files that one task has written."""
    tasks = writer(since.path, since.version, PARTITION)(iter(batches))
    return described(row for batch in tasks for row in batch["description"].to_pylist())


def test_a_task_writes_one_file_and_counts_its_rows_errors_and_bytes(lake):
    since = snapshots.to_append(lake, "predictions", "score:m-1")
    (found,) = written(since, rows(3), rows(2, error="undecodable"))
    assert (5, {"undecodable": 2}, 500) == (found.rows, found.errors, found.image_bytes)
    stored = pq.read_schema(f"{since.path}/{found.name}").names
    assert [column.name for column in COLUMNS] == stored
    assert PARTITION == found.partition_values


def test_a_task_without_rows_writes_no_file(lake):
    since = snapshots.to_append(lake, "predictions", "score:m-1")
    assert [] == written(since)
    assert [] == written(since, rows(0))


def test_files_of_attempts_that_are_not_reported_are_no_rows_of_the_table(lake):
    since = snapshots.to_append(lake, "predictions", "score:m-1")
    written(since, rows(3))  # an attempt that Spark gave up
    files = written(since, rows(3))
    assert commits.append_files(files, since) is not None
    sql = "SELECT model_name, model_version, count(*) AS images FROM predictions GROUP BY 1, 2"
    found = queries.query(lake, sql, ["predictions"]).to_pylist()
    assert [{"model_name": NAME, "model_version": 3, "images": 3}] == found


def test_a_file_that_cannot_be_written_is_no_fault_of_the_version(lake):
    with pytest.raises(NotWrittenError, match="absent"):
        list(writer(f"{lake}/absent/predictions", 0, PARTITION)(iter([rows(1)])))


def test_the_worker_that_writes_imports_no_mlflow_and_no_spark():
    code = "import sys, mlproject.scoring.prediction_files as _; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ, capture_output=True, text=True, check=True
    )
    heavy = {"mlflow", "pyspark", "pandas", "torch", "tensorflow"}
    assert set() == heavy & set(done.stdout.split())
