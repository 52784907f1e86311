"""Images with an error are scored again, and their rows replaced in one commit."""

import hashlib
import subprocess
import sys
import threading
from pathlib import Path

import mlflow
import pytest

from mlproject.erasure import removal, selection
from mlproject.errors import MachineError, RefusedError
from mlproject.ingestion import new_images, source_listing
from mlproject.ingestion.new_images import IngestSettings
from mlproject.lake import queries, snapshots
from mlproject.scoring import coverage, decision, scorer
from mlproject.scoring.batch_scoring import Settings
from tests.conftest import photo, photos
from tests.support.commands import run_command
from tests.support.kills import killed_at_write
from tests.support.lakes import add_predictions, frame, image_id
from tests.support.versions import register_colours

pytestmark = pytest.mark.spark

BLUES = 3


@pytest.fixture
def source(tmp_path):
    """Six red photos and three blue ones."""
    return photos(photos(tmp_path / "source", 6, "red"), BLUES, "blue")


@pytest.fixture
def filled(spark, lake, source):
    ingest(spark, lake, source)
    return lake


@pytest.fixture
def mended(tmp_path):
    return tmp_path / "mended"  # a file whose existence ends the fault of a version


@pytest.fixture
def version(spark, filled, store, mended):
    """A version that has raised on the blue photos, and does so no more."""
    version = register_colours("retried", fault="raises", mended=mended)
    assert BLUES == scorer.score_pending(spark, filled, version).errors
    mended.touch()
    return version


def ingest(spark, lake, source, **options):
    listed = source_listing.listing(str(source))
    return new_images.ingest_pending(spark, lake, listed, IngestSettings(**options))


def rows(lake, version):
    """The rows of a version, read without Spark."""
    found = queries.query(lake, "SELECT * FROM predictions ORDER BY image_id", ["predictions"])
    return [row for row in found.to_pylist() if row["model_id"] == version.model_id]


def labels(lake, version):
    return sorted((row["label"] or "", row["error"] or "") for row in rows(lake, version))


def retry(spark, lake, version, codes=coverage.RETRYABLE, **options):
    return scorer.retry_errors(spark, lake, version, codes, **options)


RED = [("red", "")] * 6
FAILED = [*[("", "model_failed")] * BLUES, *RED]
FINE = [*[("blue", "")] * BLUES, *RED]


def test_rows_with_an_error_are_replaced_in_one_rewrite_and_no_others(spark, filled, version):
    before = rows(filled, version)
    done = retry(spark, filled, version, settings=Settings(run_id="again", batch_images=1))
    assert (BLUES, 0) == (done.images, done.errors)
    after = rows(filled, version)
    assert [row["image_id"] for row in before] == [row["image_id"] for row in after]
    for old, new in zip(before, after, strict=True):
        if old["error"] is None:
            assert old == new
        else:
            assert ("blue", None, "again") == (new["label"], new["error"], new["run_id"])
            assert old["scored_at"] < new["scored_at"]
    log = f"{filled}/predictions/_delta_log/{done.table_version:020}.json"
    assert '"mlproject.operation":"rewrite"' in Path(log).read_text(encoding="utf-8")
    seen = snapshots.required(filled, "predictions").read(spark)
    assert len(after) == seen.where(f"model_id = '{version.model_id}'").count()
    assert 0 == retry(spark, filled, version).images


def test_only_the_errors_that_are_named_are_scored_again(spark, filled, version):
    before = rows(filled, version)
    assert 0 == retry(spark, filled, version, ["gone", "changed"]).images
    assert before == rows(filled, version)
    assert BLUES == retry(spark, filled, version, ["model_failed"]).images


def test_the_same_error_has_the_new_time(spark, filled, version, mended):
    mended.unlink()
    before = rows(filled, version)
    assert (BLUES, BLUES) == (
        (done := retry(spark, filled, version)).images,
        done.errors,
    )
    assert FAILED == labels(filled, version)
    times = {row["image_id"]: row["scored_at"] for row in before}
    later = [row for row in rows(filled, version) if row["scored_at"] > times[row["image_id"]]]
    assert BLUES == len(later)


def test_an_image_that_is_no_longer_in_the_table_is_not_scored_again(spark, filled, version):
    add_predictions(filled, version, [image_id(1)], error="gone")
    found = coverage.stored_errors(coverage.newest_tables(filled), version)
    assert {"model_failed": BLUES} == found.codes
    assert BLUES == retry(spark, filled, version).images
    assert [("", "gone"), *FINE] == labels(filled, version)


def test_a_file_that_was_gone_and_is_back_is_scored(spark, lake, source, store):
    ingest(spark, lake, source, content="reference")
    version = register_colours("referring")
    lost, changed = source / "red" / "000.jpg", source / "blue" / "000.jpg"
    bytes_of = {path: path.read_bytes() for path in (lost, changed)}
    lost.unlink()
    changed.write_bytes(photo((30, 200, 30), 77))
    scorer.score_pending(spark, lake, version)
    assert [("", "changed"), ("", "gone")] == labels(lake, version)[:2]
    for path, content in bytes_of.items():
        path.write_bytes(content)
    assert (2, 0) == ((done := retry(spark, lake, version)).images, done.errors)
    assert FINE == labels(lake, version)


@pytest.mark.parametrize(
    ("fault", "error"), [("disk", MachineError), ("always", RefusedError), ("memory", MachineError)]
)
def test_a_retry_that_fails_replaces_nothing_and_leaves_no_file(
    spark, filled, store, mended, fault, error
):
    version = register_colours(f"failing_{fault}", fault=fault, mended=mended)
    ids = list(frame(filled, "images").image_id)[:3]  # each is tried alone
    add_predictions(filled, version, ids, error="model_failed")
    before, files = rows(filled, version), set(Path(filled).rglob("*.parquet"))
    with pytest.raises(error):
        retry(spark, filled, version)
    assert before == rows(filled, version)
    assert files == set(Path(filled).rglob("*.parquet"))


def test_images_that_kill_workers_again_hold_up_no_others(
    spark, filled, store, source, monkeypatch, caplog
):
    photos(source, 2, "blue", seed=9)
    ingest(spark, filled, source)
    version = register_colours("killed", fault="killed")
    ids = list(frame(filled, "images").image_id)
    add_predictions(filled, version, ids, error="model_failed")
    failed = [("", "model_failed")] * (BLUES + 2)
    monkeypatch.setattr(decision, "SUSPECTS_WITH_ERROR", 1)
    retry(spark, filled, version, settings=Settings(batch_images=2))
    left = labels(filled, version)
    assert (len(ids), failed) == (len(left), left[: len(failed)])
    assert "2 times a worker process died; the images that are left keep" in caplog.text
    monkeypatch.undo()
    retry(spark, filled, version, settings=Settings(batch_images=2))
    assert [*failed, *RED] == labels(filled, version)


def test_a_stop_keeps_what_was_scored(spark, filled, version):
    calls = iter([False, True, True])
    done = retry(
        spark, filled, version, settings=Settings(batch_images=1), stop=lambda: next(calls)
    )
    assert 1 <= done.images < BLUES
    assert done.images == labels(filled, version).count(("blue", ""))
    assert 9 == len(rows(filled, version))


def test_another_scorer_of_the_version_at_once_loses_and_doubles_nothing(
    spark, filled, version, source
):
    photos(source, 4, "green", seed=9)
    ingest(spark, filled, source)
    results = []

    def score_others(done, to_do):
        if not results:
            results.append(scorer.score_pending(spark.newSession(), filled, version))

    done = retry(spark, filled, version, on_progress=score_others)
    assert (BLUES, 4) == (done.images, results[0].images)
    assert sorted([*FINE, *[("green", "")] * 4]) == labels(filled, version)


def test_two_retries_at_once_leave_one_row_an_image(spark, filled, version):
    results = []
    threads = [
        threading.Thread(
            target=lambda: results.append(retry(spark.newSession(), filled, version).images)
        )
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 2 == len(results)
    assert FINE == labels(filled, version)
    assert 9 == len({row["image_id"] for row in rows(filled, version)})


def test_an_image_that_is_erased_meanwhile_gets_no_row(spark, filled, version, source):
    erased = hashlib.sha256((source / "blue" / "001.jpg").read_bytes()).hexdigest()
    chosen, done = selection.Selection(image_ids=frozenset([erased])), []

    def erase(count, to_do):
        if not done:
            done.append(removal.erase_images(filled, chosen, lambda: spark))

    assert BLUES - 1 == retry(spark, filled, version, on_progress=erase).images
    assert FINE[1:] == labels(filled, version)
    assert erased not in {row["image_id"] for row in rows(filled, version)}


def test_the_command_scores_errors_again_then_what_is_pending(
    spark, filled, version, source, client
):
    photos(source, 4, "green", seed=9)
    ingest(spark, filled, source)
    words = ("score", "--model", version.uri, "--lake", filled)
    retryable = f"{BLUES} images have an error that can change (model_failed: {BLUES}, found 20"
    assert retryable in run_command(*words).stdout
    photos(source, 4, "red", seed=8)
    ingest(spark, filled, source)
    printed = run_command(*words, "--retry", "errors").stdout
    assert "that can change" not in printed
    assert f"scores images with errors again (model_failed: {BLUES}, found 20" in printed
    assert "7 images scored" in printed
    assert sorted([*FINE, *[("green", "")] * 4, *RED[:4]]) == labels(filled, version)
    [run] = mlflow.search_runs(
        filter_string="tags.`mlproject.verb` = 'score'", max_results=1, output_format="list"
    )
    assert f"model_failed: {BLUES}, found 20" in run.data.tags["mlproject.retried"]
    assert "errors" == run.data.params["retry"]
    again = run_command(*words, "--retry", "model_failed,gone").stdout
    assert "nothing to score" in again


def test_score_has_no_failed_versions_to_try_again(store):
    result = run_command("score", "--model", "models:/nobody/1", "--retry", "true", code=2)
    line = "mlproject score: retry='true' is not allowed. Write false, errors, or codes of errors "
    assert f"{line}that can change: model_failed,gone,changed" == result.stderr.strip()


KILLED = """
import mlproject
mlproject.score({uri!r}, lake={lake!r}, retry="errors")
"""


@pytest.mark.thorough
@pytest.mark.slow
def test_a_kill_at_any_write_loses_and_doubles_nothing(filled, version):
    seen, number, ended = [], 0, -9
    while ended == -9:
        ended = killed_at_write(KILLED.format(uri=version.uri, lake=filled), number)
        seen.append(labels(filled, version))
        number += 1
    assert 0 == ended
    assert number > 3  # a data file and a commit have two moments each
    assert all(one in (FAILED, FINE) for one in seen)
    assert (FAILED, FINE) == (seen[0], seen[-1])


READER = """
import sys
import pyarrow as pa
from deltalake import DeltaTable, QueryBuilder
found = QueryBuilder().register("t", DeltaTable(sys.argv[1])).execute(sys.argv[2]).read_all()
print(pa.table(found).num_rows)
"""


def test_a_reader_without_spark_sees_each_image_once(spark, filled, version):
    retry(spark, filled, version)
    sql = "SELECT image_id FROM t GROUP BY image_id HAVING count(*) > 1"
    for query, expected in ((sql, "0"), ("SELECT * FROM t", "9")):
        command = [sys.executable, "-c", READER, f"{filled}/predictions", query]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert expected == done.stdout.strip()
