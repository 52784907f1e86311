import multiprocessing
import threading
import time
from pathlib import Path

import pytest
from pyspark.sql.functions import udf

from mlproject.errors import UserError
from mlproject.lake import location, spark_tables

pytestmark = pytest.mark.spark

ROW = "pointer string, model_name string, model_version int, model_id string, state string"


def rows(spark, name="photos"):
    frame = spark.createDataFrame([("p", name, 1, "m", "serving")], ROW)
    return frame.selectExpr(
        "*", "1.0D coverage", "CAST(0 AS BIGINT) images_version", "current_timestamp() at"
    )


def count(spark, lake):
    return spark_tables.read(spark, lake, "rollouts").count()


def test_an_append_from_a_new_snapshot_is_committed(spark, lake):
    since = spark_tables.snapshot(spark, lake, "rollouts", "a")
    appended = spark_tables.append(rows(spark), since)
    assert since.version + 1 == appended.version
    assert 1 == count(spark, lake)


def test_an_append_from_a_snapshot_that_the_same_filler_has_left_behind_is_dropped(spark, lake):
    since = spark_tables.snapshot(spark, lake, "rollouts", "a")
    spark_tables.append(rows(spark), since)
    assert spark_tables.append(rows(spark), since) is None
    assert 1 == count(spark, lake)


def test_the_next_append_of_a_filler_needs_no_new_snapshot(spark, lake):
    first = spark_tables.append(rows(spark), spark_tables.snapshot(spark, lake, "rollouts", "a"))
    assert spark_tables.append(rows(spark), first) is not None
    assert 2 == count(spark, lake)


def test_another_fillers_commit_in_between_hides_no_lost_race(spark, lake):
    # With the table's version as transaction number this committed twice: B reads one version
    # later than A, because C committed, and so looks newer than A's commit that it has not seen.
    a = spark_tables.snapshot(spark, lake, "rollouts", "same")
    spark_tables.append(rows(spark), spark_tables.snapshot(spark, lake, "rollouts", "other"))
    b = spark_tables.snapshot(spark, lake, "rollouts", "same")
    assert a.version < b.version
    assert spark_tables.append(rows(spark), a) is not None
    assert spark_tables.append(rows(spark), b) is None
    assert 2 == count(spark, lake)


def test_another_fillers_commit_stops_no_append(spark, lake):
    since = spark_tables.snapshot(spark, lake, "rollouts", "a")
    spark_tables.append(rows(spark), spark_tables.snapshot(spark, lake, "rollouts", "b"))
    assert spark_tables.append(rows(spark), since) is not None


def test_of_two_overlapping_appends_of_one_filler_one_is_committed(spark, lake):
    since = spark_tables.snapshot(spark, lake, "rollouts", "a")
    slow = udf(lambda word: time.sleep(2) or word, "string")
    outcomes = []

    def append():
        slowly = rows(spark.newSession()).withColumn("state", slow("state"))
        outcomes.append(spark_tables.append(slowly, since))

    threads = [threading.Thread(target=append) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 1 == count(spark, lake)
    assert [False, True] == sorted(outcome is not None for outcome in outcomes)


def test_the_lake_is_readable_without_spark(spark, lake):
    import deltalake

    spark_tables.append(rows(spark, "blumen"), spark_tables.snapshot(spark, lake, "rollouts", "a"))
    read = deltalake.DeltaTable(f"{lake}/rollouts").to_pandas()
    assert ["blumen"] == list(read["model_name"])


def test_a_table_that_nobody_made_is_told_with_the_verb_that_makes_it(spark, lake):
    with pytest.raises(UserError, match="-e ingest"):
        spark_tables.read(spark, lake, "images")


def test_a_table_with_other_columns_is_refused(spark, lake):
    spark.range(3).write.format("delta").save(f"{lake}/images")
    with pytest.raises(UserError, match="'path' is missing"):
        spark_tables.snapshot(spark, lake, "images", "ingest")


def test_a_lake_where_a_file_lies_is_refused(tmp_path: Path):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(UserError, match="cannot be written"):
        location.locate_to_write(str(tmp_path / "file" / "lake"))


def _hold(lake, held, release):
    with location.writing(lake, "ingest"):
        held.set()
        release.wait()


def test_a_second_writer_of_a_local_lake_waits_and_is_told_for_whom(lake):
    context = multiprocessing.get_context("spawn")
    held, release = context.Event(), context.Event()
    other = context.Process(target=_hold, args=(lake, held, release))
    other.start()
    held.wait()
    told = []

    def on_wait(holder):
        told.append(holder)
        release.set()

    with location.writing(lake, "score", on_wait=on_wait):
        pass
    other.join()
    assert told[0].startswith(f"ingest (process {other.pid},")


def test_a_killed_writer_leaves_no_lock(lake):
    context = multiprocessing.get_context("spawn")
    held, release = context.Event(), context.Event()
    other = context.Process(target=_hold, args=(lake, held, release))
    other.start()
    held.wait()
    other.kill()
    other.join()
    told = []
    with location.writing(lake, "score", on_wait=told.append):
        pass
    assert [] == told


@pytest.mark.parametrize("lake", ["/data/lake", "file:/data/lake", "file:///data/lake"])
def test_a_local_lake_is_one_folder_however_it_is_written(lake):
    assert location.is_local(lake)
    assert "/data/lake" == location.locate(lake)


@pytest.mark.parametrize("lake", ["s3a://bucket/lake", "dbfs:/lake", "abfss://c@a.example/lake"])
def test_a_lake_elsewhere_is_the_uri_that_it_is(lake):
    assert not location.is_local(lake)
    assert lake == location.locate(f"{lake}/")


def test_a_folder_of_other_files_is_not_made_a_table(spark, tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "photo.jpg").write_bytes(b"x")
    with pytest.raises(UserError, match="folder of other files"):
        spark_tables.snapshot(spark, str(tmp_path), "images", "ingest")
