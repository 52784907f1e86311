import os
import signal
from pathlib import Path

import deltalake
import mlflow
import pyarrow as pa
import pytest

from mlproject.erasure import removal, selection
from mlproject.errors import UserError
from mlproject.ingestion import labels
from mlproject.lake import queries, snapshots
from mlproject.scoring import coverage, scorer
from tests.conftest import photo
from tests.erasure.conftest import SECRET, SLICES, counts, holders, ingest, no_spark, rows, secret
from tests.support.commands import run_command
from tests.support.kills import killed_at_write

pytestmark = pytest.mark.spark


def read(spark, lake, table):
    return snapshots.required(lake, table).read(spark)


def test_after_an_erase_no_file_of_the_lake_holds_the_bytes_and_the_rest_is_as_it_was(
    spark, filled, source, version
):
    kept = "path NOT LIKE '%secret%' AND path NOT LIKE '%copy%'"
    before = read(spark, filled, "images").where(kept).orderBy("path").collect()
    assert all(holders(filled, [part]) for part in SLICES)
    done = removal.erase_images(filled, secret(source), no_spark)
    assert (1, {"images": 2, "predictions": 1}, 0) == (done.contents, done.rows, done.unknown)
    assert done.data_files > 0
    assert [] == holders(filled)
    assert before == read(spark, filled, "images").orderBy("path").collect()
    assert (7, 7) == counts(filled)
    assert 1.0 == coverage.count(coverage.newest_tables(filled), version).share
    assert 0 == scorer.score_pending(spark, filled, version).images


def test_a_plan_counts_what_is_erased_also_at_other_paths_and_writes_nothing(
    spark, filled, source, version
):
    before = sorted(Path(filled).rglob("*"))
    planned = removal.plan_erasure(filled, secret(source))
    found = (planned.contents, planned.rows, planned.elsewhere, planned.size_bytes)
    assert (1, 2, 1, 2 * len(SECRET)) == found
    assert {f"erased/{version.version}": 1} == planned.predictions
    assert [str(source / name) for name in ("green/copy.jpg", "red/secret.jpg")] == planned.examples
    assert before == sorted(Path(filled).rglob("*"))


def test_a_prefix_is_a_folder_and_a_list_mixes_paths_and_hashes(spark, filled, source, tmp_path):
    below = removal.plan_erasure(filled, selection.selection(prefix=str(source / "green")))
    assert (4, 5, 1) == (below.contents, below.rows, below.elsewhere)
    with pytest.raises(UserError, match="have no row of"):
        removal.plan_erasure(filled, selection.selection(prefix=str(source / "gre")))
    row = read(spark, filled, "images").where("path LIKE '%red/000.jpg'").first()
    paths = [str(source / name) for name in ("red/001.jpg", "no.jpg")]
    (tmp_path / "list.txt").write_text("\r\n".join([row.image_id.upper(), "", *paths, "f" * 64]))
    listed = removal.plan_erasure(filled, selection.selection(file=str(tmp_path / "list.txt")))
    assert (2, 2, 0, 2) == (listed.contents, listed.rows, listed.elsewhere, listed.unknown)


def test_a_selection_without_a_match_is_an_error_and_writes_nothing(spark, filled):
    before = sorted(Path(filled).rglob("*"))
    for words in ({"path": "/no.jpg"}, {"prefix": "/no"}, {"image_id": "f" * 64}):
        with pytest.raises(UserError, match="have no row of"):
            removal.erase_images(filled, selection.selection(**words), no_spark)
    with pytest.raises(UserError, match="not a number of hours"):
        removal.erase_images(filled, selection.selection(path="/a"), no_spark, retention_hours=-1)
    assert before == sorted(Path(filled).rglob("*"))


class StoppedError(Exception):
    pass


def stop_after(step, of):
    def stop(done, total):
        assert of == total
        if done == step:
            raise StoppedError

    return stop


def test_an_erase_stopped_between_its_steps_in_turn_is_finished_by_the_same_call(
    spark, filled, source, version
):
    removal.erase_images(filled, secret(source), no_spark)
    ingest(spark, filled, source)  # the path of the secret stands in `files` only, as erased
    (source / "green" / "copy.jpg").rename(source / "back.jpg")
    (source / "red" / "secret.jpg").unlink()
    ingest(spark, filled, source, include_erased=True)
    scorer.score_pending(spark, filled, version)
    assert ((8, 8), 2) == (counts(filled), rows(filled, "files"))
    assert holders(filled)
    for step in (1, 2, 3, 4, 6):
        with pytest.raises(StoppedError):
            removal.erase_images(filled, secret(source), no_spark, on_step=stop_after(step, of=9))
    removal.erase_images(filled, secret(source), no_spark)
    assert [] == holders(filled)
    assert ((7, 7), 0) == (counts(filled), rows(filled, "files"))
    assert 1 == rows(filled, "erased")


def test_what_is_noted_of_other_paths_goes_by_the_same_call_after_a_kill(spark, lake, source):
    ingest(spark, lake, source)
    os.utime(source / "green" / "copy.jpg", (1e9, 1e9))
    ingest(spark, lake, source)
    assert 1 == rows(lake, "files")
    with pytest.raises(StoppedError):
        removal.erase_images(lake, secret(source), no_spark, on_step=stop_after(2, of=9))
    done = removal.erase_images(lake, secret(source), no_spark)
    assert {"images": 0, "files": 1} == done.rows
    assert [] == holders(lake)


def test_with_a_retention_the_bytes_stay_until_the_call_after_it(spark, lake, source):
    ingest(spark, lake, source)
    done = removal.erase_images(lake, secret(source), no_spark, retention_hours=1)
    assert 0 == done.data_files
    assert holders(lake)
    again = removal.erase_images(lake, secret(source), no_spark)
    assert ({"images": 0}, True) == (again.rows, again.data_files > 0)
    assert [] == holders(lake)
    given = pa.table({"path": [str(source / "green/000.jpg")], "label": ["other"]})
    assert 1 == labels.append_labels(lake, given, "test")
    before = sorted(Path(lake).rglob("*"))
    with pytest.raises(UserError, match="nothing of it is left"):
        removal.erase_images(lake, secret(source), no_spark)
    assert before == sorted(Path(lake).rglob("*"))


def test_predictions_that_a_scorer_at_work_adds_afterwards_go_by_the_same_call(
    spark, filled, source, version
):
    late = queries.query(filled, "SELECT * FROM predictions", ["predictions"])
    removal.erase_images(filled, secret(source), no_spark)
    deltalake.write_deltalake(f"{filled}/predictions", late, mode="append")
    done = removal.erase_images(filled, secret(source), no_spark)
    assert (0, 1) == (done.contents, done.rows["predictions"])
    ids = queries.query(filled, "SELECT DISTINCT image_id FROM predictions", ["predictions"])
    assert 7 == ids.num_rows


def test_change_data_keeps_no_bytes_and_deletion_vectors_are_refused_until_purged(
    spark, lake, source
):
    ingest(spark, lake, source)
    table = f"delta.`{lake}/images`"
    properties = "delta.enableDeletionVectors = true, delta.enableChangeDataFeed = true"
    spark.sql(f"ALTER TABLE {table} SET TBLPROPERTIES ({properties})")
    spark.sql(f"DELETE FROM {table} WHERE path LIKE '%secret%'")
    chosen = selection.selection(path=str(source / "green/copy.jpg"))
    before = sorted(Path(lake, "images").rglob("*"))
    with pytest.raises(UserError, match="REORG TABLE") as raised:
        removal.erase_images(lake, chosen, no_spark)
    assert before == sorted(Path(lake, "images").rglob("*"))
    spark.sql(str(raised.value).rpartition(": ")[2])
    removal.erase_images(lake, chosen, no_spark)
    assert [] == holders(lake)
    assert [] == list(Path(lake).rglob("deletion_vector*"))
    assert 7 == read(spark, lake, "images").count()


def test_the_log_holds_no_path_and_no_hash(spark, lake, tmp_path):
    (tmp_path / "s").mkdir()
    for name in ("a", "m", "z"):
        (tmp_path / "s" / f"{name}.jpg").write_bytes(photo((9, 9, 9), ord(name)))
    ingest(spark, lake, tmp_path / "s")
    hashes = queries.query(lake, "SELECT image_id FROM images", ["images"])["image_id"].to_pylist()
    chosen = selection.selection(prefix=str(tmp_path / "s"))
    removal.erase_images(lake, chosen, no_spark)
    log = "".join(file.read_text() for file in Path(lake, "images/_delta_log").glob("*.json"))
    assert not [found for found in hashes if found[:32] in log]
    assert f"{tmp_path}/s/" not in log


def erased(*words: str) -> tuple[str, mlflow.entities.Run]:
    """What the command prints, and its MLflow run."""
    result = run_command("erase", *words)
    return result.stdout, mlflow.MlflowClient().get_run(mlflow.last_active_run().info.run_id)


def test_the_command_shows_what_goes_then_erases_and_logs_counts_only(filled, source):
    words = ("--lake", filled, "--path", str(source / "red" / "secret.jpg"))
    output, planned = erased(*words, "--plan", "true")
    assert "To erase: 1 images in 2 rows of table images" in output
    assert f"  {source}/green/copy.jpg\n  {source}/red/secret.jpg\n" in output
    assert holders(filled)
    output, done = erased(*words, "--retention_hours", "1")
    assert "can no longer be read" not in output
    output, _ = erased(*words)
    assert "can no longer be read" in output
    assert str(source) not in output
    assert [] == holders(filled)
    assert 2.0 == planned.data.metrics["images"] == done.data.metrics["images"]
    assert 1.0 == done.data.metrics["predictions"]
    for run in (planned, done):
        assert "secret" not in str(run.to_dictionary())
        assert {"lake", "plan"} == set(run.data.params) - {"retention_hours"}


@pytest.mark.slow
def test_killed_at_each_step_that_writes_and_run_again_it_leaves_what_one_run_leaves(
    filled, source
):
    code = f"""
from mlproject.erasure import removal, selection
chosen = selection.selection(path={str(source / "red" / "secret.jpg")!r})
removal.erase_images({filled!r}, chosen, None)
"""
    kills = 0
    while (ended := killed_at_write(code, kills)) == -signal.SIGKILL:
        kills += 1
        assert kills < 100
    # The last kill may have come after the last write.
    assert ended == 0 or "nothing of it is left" in ended
    assert kills > 10
    assert [] == holders(filled)
    assert (7, 7) == counts(filled)
