"""Rows of `predictions` replaced in one commit: races, fences and kills, without Spark."""

from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pytest

from mlproject.lake import commits, data_files, queries, rewrites, schemas, snapshots, vacuum
from tests.support.kills import killed_at_write
from tests.support.lakes import image_id, version

MODEL, OTHER = version(1), version(1, "m-other")  # a number that was used before
KEYS = {"model_name": "photos", "model_version": "1"}


def no_spark():
    raise AssertionError("no Spark is needed for little")


def predictions(lake, numbers, model=MODEL, **answer):
    """A data file of predictions that no commit names yet, and the version it was begun at."""
    since = snapshots.to_append(lake, "predictions", f"score:{model.model_id}")
    facts = {"model_id": model.model_id, "run_id": "", "images_version": 1}
    rows = [
        {"image_id": image_id(n), "scored_at": datetime.now(UTC), **facts, **answer}
        for n in numbers
    ]
    columns = [field for field in schemas.SCHEMAS["predictions"] if field.name not in KEYS]
    table = pa.Table.from_pylist(rows, schema=pa.schema(columns))
    written = data_files.write(
        [table],
        schemas.SCHEMAS["predictions"],
        since.path,
        since.version,
        partition_values={**KEYS, "model_version": str(model.version)},
    )
    return written, since


def append(lake, numbers, model=MODEL, **answer):
    written, since = predictions(lake, numbers, model, **answer)
    assert commits.append_files([written], since) is not None


def answers(lake, model=MODEL):
    """Number of the image, label and error of each row of a model."""
    sql = f"""SELECT image_id, label, error FROM predictions
        WHERE model_id = '{model.model_id}' ORDER BY image_id"""
    numbers = {image_id(n): n for n in range(20)}
    rows = queries.query(lake, sql, ["predictions"]).to_pylist()
    return sorted((numbers[row["image_id"]], row["label"], row["error"]) for row in rows)


def names(lake):
    table = snapshots.open_table(f"{lake}/predictions")
    return {file.path for file in snapshots.active_files(table)}


def log_of(lake, number):
    path = Path(lake, "predictions/_delta_log", f"{number:020}.json")
    return path.read_text(encoding="utf-8")


@pytest.fixture
def filled(lake):
    """Ten rows in two files, three with an error, beside rows of another model and version."""
    append(lake, range(5), label="red")
    append(lake, range(5, 7), label="red")
    append(lake, range(7, 10), error="model_failed")
    append(lake, range(5, 10), OTHER, error="model_failed")
    append(lake, range(5, 10), version(2), error="model_failed")
    return lake


BEFORE = [(n, "red", None) for n in range(7)] + [(n, None, "model_failed") for n in range(7, 10)]
AFTER = [(n, "red", None) for n in range(7)] + [(n, "blue", None) for n in range(7, 10)]


def test_the_rows_of_one_model_are_replaced_in_one_rewrite(filled):
    others = [answers(filled, one) for one in (OTHER, version(2))]
    new, since = predictions(filled, range(7, 10), label="blue")
    done = rewrites.replace_rows([new], since, MODEL.model_id, no_spark)
    assert since.version + 1 == done.table_version
    assert AFTER == answers(filled)
    assert others == [answers(filled, one) for one in (OTHER, version(2))]
    assert '"mlproject.operation":"rewrite"' in log_of(filled, done.table_version)
    assert '"dataChange":false' not in log_of(filled, done.table_version)


def test_rows_of_a_file_that_are_not_replaced_are_kept_and_other_files_are_not_touched(filled):
    before = names(filled)
    new, since = predictions(filled, [8], label="blue")
    done = rewrites.replace_rows([new], since, MODEL.model_id, no_spark)
    assert (1, 1) == (done.files_removed, done.files_added)
    assert 1 == len(before - names(filled))
    assert [*BEFORE[:8], (8, "blue", None), BEFORE[9]] == answers(filled)


def test_rows_that_another_writer_appends_meanwhile_stay(filled, monkeypatch):
    replace_files, late = rewrites.replace_files, iter([1])

    def slow(*arguments, **options):
        for _ in late:
            append(filled, [10], label="green")
        return replace_files(*arguments, **options)

    monkeypatch.setattr(rewrites, "replace_files", slow)
    new, since = predictions(filled, range(7, 10), label="blue")
    rewrites.replace_rows([new], since, MODEL.model_id, no_spark)
    assert [*AFTER, (10, "green", None)] == answers(filled)


def test_an_append_that_was_begun_before_a_replacement_is_committed_after_it(filled):
    late, begun = predictions(filled, [10], label="green")
    new, since = predictions(filled, range(7, 10), label="blue")
    rewrites.replace_rows([new], since, MODEL.model_id, no_spark)
    assert commits.append_files([late], begun) is not None
    assert [*AFTER, (10, "green", None)] == answers(filled)


@pytest.mark.parametrize("rival", ["compaction", "replacement"])
def test_of_two_rewrites_at_once_one_starts_again(filled, monkeypatch, rival):
    replace_files, late = rewrites.replace_files, iter([1])

    def slow(*arguments, **options):
        for _ in late:
            monkeypatch.setattr(rewrites, "replace_files", replace_files)
            if rival == "compaction":
                rewrites.compact(f"{filled}/predictions", 2**20, 2**20, no_spark)
            else:
                other, begun = predictions(filled, range(7, 10), label="green")
                rewrites.replace_rows([other], begun, MODEL.model_id, no_spark)
        return replace_files(*arguments, **options)

    monkeypatch.setattr(rewrites, "replace_files", slow)
    new, since = predictions(filled, range(7, 10), label="blue")
    assert rewrites.replace_rows([new], since, MODEL.model_id, no_spark)
    assert AFTER == answers(filled)


def test_an_erasure_before_the_commit_makes_the_rows_anew(filled, monkeypatch):
    path = f"{filled}/predictions"
    new, since = predictions(filled, range(7, 10), label="blue")
    rewrites.erase_rows(path, [image_id(8)], no_spark)
    vacuum.erased_files(path)
    assert rewrites.replace_rows([new], since, MODEL.model_id, no_spark) is None
    assert [row for row in BEFORE if row[0] != 8] == answers(filled)
    assert not Path(path, new.name).exists()


def test_an_erasure_in_the_middle_makes_the_rows_anew(filled, monkeypatch):
    path, replace_files, late = f"{filled}/predictions", rewrites.replace_files, iter([1])

    def slow(*arguments, **options):
        for _ in late:
            monkeypatch.setattr(rewrites, "replace_files", replace_files)
            rewrites.erase_rows(path, [image_id(8)], no_spark)
            vacuum.erased_files(path)
        return replace_files(*arguments, **options)

    monkeypatch.setattr(rewrites, "replace_files", slow)
    new, since = predictions(filled, range(7, 10), label="blue")
    assert rewrites.replace_rows([new], since, MODEL.model_id, no_spark) is None
    assert [row for row in BEFORE if row[0] != 8] == answers(filled)


KILLED = """
from tests.lake.test_replacing_rows import *
new, since = predictions({lake!r}, range(7, 9), label="blue")
assert rewrites.replace_rows([new], since, MODEL.model_id, no_spark)
"""


def test_a_kill_at_any_write_loses_and_doubles_nothing(filled):
    some = [*BEFORE[:7], (7, "blue", None), (8, "blue", None), BEFORE[9]]
    seen, number, ended = [], 0, -9
    while ended == -9:
        ended = killed_at_write(KILLED.format(lake=filled), number)
        seen.append(answers(filled))
        number += 1
    assert 0 == ended
    assert number > 6  # two data files and a commit have two moments each
    assert all(one in (BEFORE, some) for one in seen)
    assert BEFORE == seen[0]
    assert some == seen[-1]
