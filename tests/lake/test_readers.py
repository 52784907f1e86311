"""Filters on every column of every table find their rows, in every reader that the docs name."""

import json
import subprocess
import sys
from datetime import UTC, datetime

import pyarrow as pa
import pytest

from mlproject.lake import commits, data_files, maintenance, queries, schemas, snapshots

WHEN = datetime(2026, 1, 2, 3, 4, 5, 678_901, tzinfo=UTC)
VALUES = {
    pa.string(): "daisy",
    pa.binary(): b"x",
    pa.int32(): 3,
    pa.int64(): 7,
    pa.float64(): 0.25,
    schemas.TIME: WHEN,
    pa.list_(pa.string()): ["daisy"],
    pa.list_(pa.float64()): [0.25],
}
FILTERED = [
    (table, field.name)
    for table, columns in schemas.SCHEMAS.items()
    for field in columns
    if not pa.types.is_list(field.type)
]


@pytest.fixture(scope="module")
def lake(tmp_path_factory):
    """Every table with three data files of two rows: values, nulls, and values beside nulls."""
    lake = str(tmp_path_factory.mktemp("readers"))
    for table, columns in schemas.SCHEMAS.items():
        keys = {"model_name": "phö tos", "model_version": 3} if table == "predictions" else {}
        full = {field.name: VALUES[field.type] for field in columns} | keys
        for rows in ([full, full], [keys, keys], [full, keys]):
            since = snapshots.to_append(lake, table, "test")
            partitions = {name: str(value) for name, value in keys.items()}
            file = data_files.write(
                [pa.Table.from_pylist(rows, schema=columns)],
                columns,
                since.path,
                since.version,
                partition_values=partitions,
            )
            assert commits.append_files([file], since) is not None
    return lake


def rows_with_value(table, column):
    return 6 if table == "predictions" and column in ("model_name", "model_version") else 3


def value(table, column):
    if table == "predictions" and column == "model_name":
        return "phö tos"
    return VALUES[schemas.SCHEMAS[table].field(column).type]


@pytest.mark.parametrize(("table", "column"), FILTERED)
def test_query_builder(lake, table, column):
    found = value(table, column)
    literal = {
        datetime: queries.instant,
        str: queries.quoted,
        bytes: lambda held: f"X'{held.hex()}'",
    }.get(type(found), str)(found)
    sql = f"SELECT count(*) AS rows FROM {table} WHERE {column} = {literal}"
    assert rows_with_value(table, column) == queries.query(lake, sql, [table])["rows"][0].as_py()


READ = """
import json, os, sys
from datetime import datetime
import pyarrow.dataset as ds
from deltalake import DeltaTable

def dataset(table, column, value):
    found = DeltaTable(f"{lake}/{table}").to_pyarrow_dataset()
    return [found.count_rows(filter=ds.field(column) == value),
            found.count_rows(filter=ds.field(column).is_null())]

def duckdb(table, column, value):
    import duckdb
    found = DeltaTable(f"{lake}/{table}").to_pyarrow_dataset()
    sql = "SELECT count(*) FROM found WHERE "
    return [duckdb.execute(f'{sql} "{column}" = $1', [value]).fetchall()[0][0],
            duckdb.execute(f'{sql} "{column}" IS NULL').fetchall()[0][0]]

def polars(table, column, value):
    import polars as pl
    found, key = pl.scan_delta(f"{lake}/{table}"), pl.col(column)
    return [found.filter(one).select(pl.len()).collect().item()
            for one in (key == value, key.is_null())]

lake, reader, wanted = sys.argv[1], globals()[sys.argv[2]], json.loads(sys.argv[3])
kinds = {"bytes": str.encode, "datetime": datetime.fromisoformat}
kinds |= {"int": int, "float": float, "str": str}
found = {f"{table}.{column}": reader(table, column, kinds[kind](text))
         for table, column, kind, text in wanted}
print(json.dumps(found), flush=True)
os._exit(0)  # at its exit a process that used these readers may abort (deltalake 1.6.6)
"""


def read(lake, reader, columns):
    """Rows with the value and rows with a null, as a process of its own finds them."""
    wanted = []
    for table, column in columns:
        held = value(table, column)
        text = held.decode() if isinstance(held, bytes) else str(held)
        wanted.append((table, column, type(held).__name__, text))
    command = [sys.executable, "-W", "ignore", "-c", READ, lake, reader, json.dumps(wanted)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "" == done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("reader", ["dataset", "duckdb", "polars"])
def test_readers_of_a_process_of_their_own(lake, reader):
    counts = {pair: rows_with_value(*pair) for pair in FILTERED}
    rows = {".".join(pair): [count, 6 - count] for pair, count in counts.items()}
    assert rows == read(lake, reader, FILTERED)


@pytest.mark.spark
@pytest.mark.parametrize("table", schemas.TABLES)
def test_spark(spark, lake, table):
    frame = snapshots.required(lake, table).read(spark)
    columns = [name for other, name in FILTERED if other == table]
    found = {}
    for column in columns:
        held = value(table, column)
        found[column] = frame.where(frame[column] == held).count()
    assert {column: rows_with_value(table, column) for column in columns} == found


def test_files_of_older_releases_find_their_rows_once_their_statistics_are_mended(tmp_path):
    old = str(tmp_path)
    since = snapshots.to_append(old, "images", "ingest")
    row = {field.name: VALUES[field.type] for field in schemas.SCHEMAS["images"]}
    rows = pa.Table.from_pylist([row], schema=schemas.SCHEMAS["images"])
    file = data_files.write([rows], schemas.SCHEMAS["images"], since.path, since.version)
    measured = ("size_bytes", "modified_at", "width", "height", "ingested_at")
    for bounds in ("minValues", "maxValues"):  # as commit 6eb5f63 wrote them
        kept = {name: file.statistics[bounds][name] for name in measured}
        file.statistics[bounds] = kept
    del file.statistics["tightBounds"]
    commits.append_files([file], since)
    assert 1 == maintenance.maintain_table(since.path, "images", 24, None, plan=True).files_mended
    assert 1 == maintenance.maintain_table(since.path, "images", 24, None).files_mended
    assert 0 == maintenance.maintain_table(since.path, "images", 24, None).files_mended
    assert {"images.label": [1, 0]} == read(old, "dataset", [("images", "label")])
