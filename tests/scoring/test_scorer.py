import os
import threading

import mlflow
import pytest
from pyspark.sql import functions as F

from mlproject.erasure import removal, selection
from mlproject.errors import UserError
from mlproject.ingestion import new_images, source_listing
from mlproject.lake import snapshots
from mlproject.scoring import scorer, workers
from mlproject.scoring.scorer import Settings
from mlproject.versions import version_files
from tests.conftest import photo, photos
from tests.support.lakes import add_frame
from tests.support.versions import register_colours

pytestmark = pytest.mark.spark


@pytest.fixture(scope="module")
def version(store):
    return register_colours("colours")


@pytest.fixture
def source(spark, lake, tmp_path):
    folder = tmp_path / "source"
    photos(folder, 6, "red")
    photos(folder, 4, "green", seed=1)
    (folder / "red" / "broken.jpg").write_bytes(photo((1, 2, 3))[:200])
    ingest(spark, lake, folder)
    return folder


def ingest(spark, lake, folder):
    return new_images.ingest_pending(spark, lake, source_listing.listing(str(folder)))


def answers(spark, lake):
    return snapshots.required(lake, "predictions").read(spark)


def test_every_image_is_predicted_once_and_names_its_version(spark, lake, source, version):
    scored = scorer.score_pending(spark, lake, version, settings=Settings(run_id="run"))
    assert (11, 1) == (scored.images, scored.errors)
    rows = answers(spark, lake)
    assert 11 == rows.select("image_id").distinct().count() == rows.count()
    named = rows.select("model_name", "model_version", "model_id", "run_id").distinct().collect()
    assert [("colours", version.version, version.model_id, "run")] == [tuple(row) for row in named]
    joined = rows.join(
        snapshots.required(lake, "images").read(spark).select("image_id", "path"), "image_id"
    )
    wrong = joined.where(~F.col("path").contains(F.concat(F.lit("/"), "label", F.lit("/"))))
    assert 0 == wrong.count()


def test_a_bad_image_is_nulls_and_a_code_and_the_others_have_none(spark, lake, source, version):
    scorer.score_pending(spark, lake, version)
    bad = answers(spark, lake).where("error IS NOT NULL").collect()
    assert [("undecodable", None, None, None, None)] == [
        (row.error, row.label, row.score, row.top_labels, row.top_scores) for row in bad
    ]
    fine = answers(spark, lake).where("error IS NULL")
    assert 0 == fine.where("label IS NULL OR label IN ('', 'nan', 'None') OR isnan(score)").count()


def test_a_second_score_finds_nothing_and_commits_nothing(spark, lake, source, version):
    first = scorer.score_pending(spark, lake, version)
    second = scorer.score_pending(spark, lake, version)
    assert (0, first.table_version) == (second.images, second.table_version)


def test_only_the_overwritten_file_is_scored_again(spark, lake, source, version):
    scorer.score_pending(spark, lake, version)
    (source / "green" / "002.jpg").write_bytes(photo((10, 10, 250), 5))
    ingest(spark, lake, source)
    assert 1 == scorer.score_pending(spark, lake, version).images


def test_one_image_in_two_files_is_scored_once(spark, lake, source, version):
    (source / "copy.jpg").write_bytes((source / "red" / "000.jpg").read_bytes())
    ingest(spark, lake, source)
    assert 11 == scorer.score_pending(spark, lake, version).images


@pytest.mark.parametrize("batch_images", [4, 100])
def test_micro_batches_of_any_size_predict_the_same(spark, lake, source, version, batch_images):
    (source / "blue").mkdir()
    (source / "blue" / "late.jpg").write_bytes(photo((10, 10, 250), 9))
    ingest(spark, lake, source)
    calls = []
    scored = scorer.score_pending(
        spark,
        lake,
        version,
        settings=Settings(batch_images=batch_images),
        on_progress=lambda *at: calls.append(at),
    )
    assert 12 == scored.images == calls[-1][0]
    assert 12 == answers(spark, lake).select("image_id").distinct().count()
    if batch_images < 12:
        assert len(calls) > 1


def test_two_versions_stand_side_by_side(spark, lake, source, version):
    other = register_colours("colours", reverse=True)
    scorer.score_pending(spark, lake, version)
    assert 11 == scorer.score_pending(spark, lake, other).images
    counts = answers(spark, lake).groupBy("model_version").count().collect()
    assert {(version.version, 11), (other.version, 11)} == {tuple(row) for row in counts}


def test_a_version_number_that_was_used_before_is_another_version(spark, lake, source, store):
    elder = register_colours("numbered")
    scorer.score_pending(spark, lake, elder)
    mlflow.MlflowClient().delete_registered_model("numbered")
    again = register_colours("numbered")
    assert elder.uri == again.uri
    assert 11 == scorer.score_pending(spark, lake, again).images


def test_two_scorers_of_one_version_at_once_make_no_duplicate(spark, lake, source, version):
    outcomes = []
    threads = [
        threading.Thread(
            target=lambda: outcomes.append(
                scorer.score_pending(
                    spark.newSession(), lake, version, settings=Settings(batch_images=3)
                )
            )
        )
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 11 == sum(scored.images for scored in outcomes)
    assert 11 == answers(spark, lake).count()


def test_an_image_without_content_gets_the_error_of_its_row(spark, lake, source, version):
    row = snapshots.required(lake, "images").read(spark).limit(1)
    row = row.withColumn("image_id", F.lit("big")).withColumn("path", F.lit("big.jpg"))
    row = row.withColumn("content", F.lit(None).cast("binary"))
    add_frame(lake, "images", row.withColumn("error", F.lit("too_many_bytes")))
    scorer.score_pending(spark, lake, version)
    assert "too_many_bytes" == answers(spark, lake).where("image_id = 'big'").first().error


def test_packages_that_differ_from_the_versions_pins_are_named(version):
    other = register_colours("pinned", pins=["pillow==1.2.3", "no-such-package==4.5"])
    assert [] == version_files.read(version).unmet
    assert ["pillow 1.2.3 (here 13.0.0)", "no-such-package 4.5 (here absent)"] == (
        version_files.read(other).unmet
    )


def test_versions_share_worker_processes_with_one_thread_where_their_engine_is_onnx_runtime(
    spark, store
):
    onnx = [register_colours("colours") for _ in range(2)]
    native = [register_colours("colours", config={"engine": "native"}) for _ in range(2)]

    def processes(of):
        with workers.environment_of(spark, of):
            asked = F.udf(
                lambda _: f"{os.getpid()} {os.environ['OMP_NUM_THREADS']}", "string"
            ).asNondeterministic()
            found = spark.range(0, 8, 1, 4).select(asked("id").alias("answer"))
        return {row.answer for row in found.collect()}

    first, second = map(processes, native)
    assert {"1"} == {words.split()[1] for words in first | second}
    assert set() == first & second
    third, fourth = map(processes, onnx)
    assert third == fourth
    assert set() == third & (first | second)


def test_a_model_made_again_while_its_elder_was_resolved_is_not_loaded_in_its_stead(
    spark, lake, source
):
    elder = register_colours("remade")
    mlflow.MlflowClient().delete_registered_model("remade")
    register_colours("remade", reverse=True)
    scorer.score_pending(spark, lake, elder)
    red = answers(spark, lake).where("label = 'red'").count()
    assert 6 == red


def test_a_lake_without_images_is_an_error(spark, lake, version):
    with pytest.raises(UserError, match="-e ingest"):
        scorer.score_pending(spark, lake, version)


def test_an_image_that_is_erased_while_others_are_scored_gets_no_row(spark, lake, source, version):
    """The files that the scoring has pinned are removed, and its next commit is refused."""
    ids = sorted(row.image_id for row in snapshots.required(lake, "images").read(spark).collect())
    erased = []

    def erase(done, to_do):
        if not erased:
            left = set(ids) - {row.image_id for row in answers(spark, lake).collect()}
            erased.append(min(left))
            chosen = selection.Selection(image_ids=frozenset(erased))
            removal.erase_images(lake, chosen, lambda: spark)

    settings = Settings(batch_images=4)
    scored = scorer.score_pending(spark, lake, version, settings=settings, on_progress=erase)
    rows = sorted(row.image_id for row in answers(spark, lake).collect())
    assert [one for one in ids if one not in erased] == rows
    assert 10 == scored.images
