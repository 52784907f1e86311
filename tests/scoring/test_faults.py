"""What versions do wrong while they score, in real workers: each fault has its own end."""

import shutil
from pathlib import Path

import deltalake
import pyarrow.parquet as pq
import pytest

from mlproject.errors import MachineError, RefusedError
from mlproject.ingestion import new_images, source_listing
from mlproject.integrations import spark_session
from mlproject.lake import location, snapshots
from mlproject.scoring import decision, scorer
from mlproject.scoring.scorer import Settings
from tests.conftest import photo, photos
from tests.support.lakes import frame
from tests.support.versions import register_colours

pytestmark = [pytest.mark.spark, pytest.mark.slow]


@pytest.fixture(scope="module")
def filled(spark, tmp_path_factory):
    """A lake with six red photos and a blue one, and a table of predictions."""
    folder = tmp_path_factory.mktemp("faults")
    photos(folder / "source", 6, "red")
    (folder / "source" / "blue.jpg").write_bytes(photo((30, 30, 200), 7))
    lake = location.locate_to_write(str(folder / "lake"))
    new_images.ingest_pending(spark, lake, source_listing.listing(str(folder / "source")))
    return lake


def score(spark, lake, version, **settings):
    return scorer.score_pending(spark, lake, version, settings=Settings(**settings))


def labels_and_errors(spark, lake, version):
    rows = scorer.version_predictions(snapshots.required(lake, "predictions").read(spark), version)
    return sorted((row.label or "", row.error or "") for row in rows.collect())


FINE = [("red", "")] * 6


@pytest.mark.parametrize("fault", ["raises", "greedy"])
def test_a_version_that_raises_on_one_image_predicts_the_others(spark, filled, store, fault):
    version = register_colours(f"raising_{fault}", fault=fault)
    scored = score(spark, filled, version)
    assert (7, 1) == (scored.images, scored.errors)
    assert [("", "model_failed"), *FINE] == labels_and_errors(spark, filled, version)


@pytest.mark.parametrize(("fault", "error"), [("nan", "not_finite"), ("sum", "bad_answer")])
def test_an_invalid_prediction_gets_an_error_code(spark, filled, store, fault, error):
    version = register_colours(f"wrong_{fault}", fault=fault)
    assert 1 == score(spark, filled, version).errors
    assert [("", error), *FINE] == labels_and_errors(spark, filled, version)


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("rows", r"\(7 model_failed\): .*RESULT_ROWS_MISMATCH"),
        ("columns", r"\(7 model_failed\): .*score"),
        ("always", r"\(7 model_failed\): ValueError: no photos, please"),
        ("all_nan", r"\(7 not_finite\)$"),
        ("all_sum", r"\(7 bad_answer\)$"),
    ],
)
def test_a_version_that_is_wrong_on_every_image_of_its_first_micro_batch_is_refused(
    spark, filled, store, fault, reason
):
    version = register_colours(f"wrong_{fault}", fault=fault)
    before = data_files(filled)
    with pytest.raises(RefusedError, match=f"no image of its first micro-batch {reason}"):
        score(spark, filled, version)
    assert [] == labels_and_errors(spark, filled, version)
    assert before == data_files(filled)


def data_files(lake):
    return {str(path) for path in Path(lake, "predictions").rglob("*.parquet")}


def test_an_image_on_which_a_version_raises_is_blamed_once_the_version_has_predicted_others(
    spark, filled, store
):
    version = register_colours("first", fault="raises")
    blue, others = blue_and_others(filled)
    with pytest.raises(RefusedError, match=r"\(1 model_failed\): ValueError: no blue, please"):
        scorer.score_pending(spark, filled, version, only=blue)
    scorer.score_pending(spark, filled, version, only=others[:1])
    scored = scorer.score_pending(spark, filled, version, only=blue)
    assert (1, 1) == (scored.images, scored.errors)
    assert [("", "model_failed"), FINE[0]] == labels_and_errors(spark, filled, version)


def test_images_with_faults_of_their_own_are_no_fault_of_the_version(spark, lake, store, tmp_path):
    for number in range(2):
        (tmp_path / f"{number}.jpg").write_bytes(photo((1, 2, 3), number)[: 200 + number])
    new_images.ingest_pending(spark, lake, source_listing.listing(str(tmp_path)))
    version = register_colours("readable")
    assert 2 == score(spark, lake, version).errors


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        ("all_killed", "2 times a worker process died"),
        ("hangs", r"2 times no task ended in 8 s"),
        ("unloadable", "cannot score: .*no such thing"),
    ],
)
def test_a_version_whose_workers_all_die_or_hang_is_refused(spark, filled, store, fault, expected):
    version = register_colours(f"ill_{fault}", fault=fault)
    with pytest.raises(RefusedError, match=expected):
        score(spark, filled, version, task_timeout=8)
    answered = frame(filled, "predictions")
    assert version.model_id not in set(answered.model_id)


@pytest.mark.parametrize(
    ("fault", "engine"),
    [("crashes", "onnxruntime"), ("killed", "native")],  # killed as the kernel does without memory
)
def test_an_image_that_kills_workers_gets_an_error_while_others_do_not(
    spark, filled, store, fault, engine
):
    version = register_colours("isolated", fault=fault, config={"engine": engine})
    blue, _ = blue_and_others(filled)
    with pytest.raises(RefusedError, match="2 times a worker process died"):
        scorer.score_pending(spark, filled, version, only=blue)
    assert [] == labels_and_errors(spark, filled, version)
    scored = score(spark, filled, version)
    assert (7, 1) == (scored.images, scored.errors)
    assert [("", "model_failed"), *FINE] == labels_and_errors(spark, filled, version)


def test_an_image_that_comes_alone_and_kills_workers_is_blamed_as_others_are_still_predicted(
    spark, filled, store
):
    version = register_colours("alone", fault="killed")
    blue, others = blue_and_others(filled)
    scorer.score_pending(spark, filled, version, only=others)
    before = data_files(filled)
    scored = scorer.score_pending(spark, filled, version, only=blue)
    assert (1, 1) == (scored.images, scored.errors)
    assert [("", "model_failed"), *FINE] == labels_and_errors(spark, filled, version)
    assert 1 == len(data_files(filled) - before)  # nothing is left of what was scored again


def test_workers_that_die_with_images_that_were_predicted_before_are_the_machines_fault(
    spark, filled, store, tmp_path
):
    version = register_colours("starved", fault="all_killed", mended=tmp_path / "mended")
    (tmp_path / "mended").touch()
    blue, others = blue_and_others(filled)
    scorer.score_pending(spark, filled, version, only=others)
    (tmp_path / "mended").unlink()
    with pytest.raises(MachineError, match=r"died, then with images that were predicted before"):
        scorer.score_pending(spark, filled, version, only=blue)
    assert FINE == labels_and_errors(spark, filled, version)
    (tmp_path / "mended").touch()
    score(spark, filled, version)
    assert [("blue", ""), *FINE] == labels_and_errors(spark, filled, version)


def test_a_version_that_kills_workers_with_too_many_images_gets_further_in_each_scoring(
    spark, lake, store, tmp_path, monkeypatch
):
    photos(photos(tmp_path / "source", 5, "red"), 2, "blue")
    new_images.ingest_pending(spark, lake, source_listing.listing(str(tmp_path / "source")))
    version = register_colours("many", fault="killed")
    [one, *_] = frame(lake, "images").query("label == 'red'").image_id
    scorer.score_pending(spark, lake, version, only=[one])
    monkeypatch.setattr(decision, "SUSPECTS", 1)
    with pytest.raises(RefusedError, match="2 times a worker process died"):
        score(spark, lake, version)
    assert 1 == [error for _, error in labels_and_errors(spark, lake, version)].count(
        "model_failed"
    )
    score(spark, lake, version)
    assert [("", "model_failed")] * 2 + FINE[:5] == labels_and_errors(spark, lake, version)


def blue_and_others(lake):
    images = frame(lake, "images")
    is_blue = images.path.str.endswith("blue.jpg")
    return list(images[is_blue].image_id), list(images[~is_blue].image_id)


def test_a_data_file_that_spark_cannot_read_is_a_fault_of_the_machine(
    spark, filled, store, tmp_path
):
    lake = str(shutil.copytree(filled, tmp_path / "lake"))
    [file] = (Path(lake) / "images").glob("*.parquet")
    content, row_group = file.read_bytes(), pq.ParquetFile(file).metadata.row_group(0)
    columns = [row_group.column(number) for number in range(row_group.num_columns)]
    [photos_column] = [column for column in columns if column.path_in_schema == "content"]
    start = photos_column.data_page_offset
    file.write_bytes(content[:start] + bytes(64) + content[start + 64 :])
    version = register_colours("unread")
    with pytest.raises(MachineError, match=r"the machine failed: 2 times \[FAILED_READ_FILE"):
        score(spark, lake, version)
    file.write_bytes(content)
    assert 7 == score(spark, lake, version).images


@pytest.mark.parametrize("fault", ["memory_once", "cuda_once", "disk_once"])
def test_a_fault_of_the_machine_is_tried_again_and_never_stored(
    spark, filled, store, tmp_path, fault
):
    version = register_colours(f"transient_{fault}", fault=fault, mended=tmp_path / "mended")
    scored = score(spark, filled, version)
    assert (7, 0) == (scored.images, scored.errors)
    assert [("blue", ""), *FINE] == labels_and_errors(spark, filled, version)


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("memory", "2 times MemoryError"),
        ("cuda", "2 times RuntimeError: CUDA out of memory"),
        ("disk", r"2 times OSError: \[Errno 5\] Input/output error"),
    ],
)
def test_a_fault_that_stays_ends_the_scoring_and_the_next_one_goes_on(
    spark, filled, store, tmp_path, fault, reason
):
    version = register_colours(f"staying_{fault}", fault=fault, mended=tmp_path / "mended")
    with pytest.raises(MachineError, match=f"the machine failed: {reason}"):
        score(spark, filled, version)
    assert [] == labels_and_errors(spark, filled, version)
    (tmp_path / "mended").touch()
    assert 7 == score(spark, filled, version).images
    assert [("blue", ""), *FINE] == labels_and_errors(spark, filled, version)


def test_a_fault_of_the_machine_after_some_micro_batches_keeps_these(
    spark, filled, store, tmp_path
):
    version = register_colours("later", fault="disk", mended=tmp_path / "mended")
    (tmp_path / "mended").touch()

    def break_again(done, to_do):
        (tmp_path / "mended").unlink(missing_ok=True)

    with pytest.raises(MachineError):
        scorer.score_pending(
            spark, filled, version, settings=Settings(batch_images=3), on_progress=break_again
        )
    stored = labels_and_errors(spark, filled, version)
    assert 0 < len(stored) < 7
    assert {""} == {error for _, error in stored}


def test_a_table_that_cannot_be_written_by_tasks_is_a_fault_of_the_machine(
    spark, filled, store, monkeypatch
):
    version = register_colours("unwritable")
    before, folder = data_files(filled), Path(filled, "predictions", "model_name=unwritable")
    folder.write_text("no folder")
    with pytest.raises(MachineError, match="2 times predictions cannot be written"):
        score(spark, filled, version)
    folder.unlink()
    assert before == data_files(filled)
    assert 7 == score(spark, filled, version).images


def test_a_fault_does_not_harm_the_next_version(spark, filled, store):
    version = register_colours("healthy")
    score(spark, filled, version)
    assert [("blue", ""), *FINE] == labels_and_errors(spark, filled, version)


def test_nulls_are_right_however_the_rows_are_batched(spark, filled, store):
    """MLflow's struct results corrupt nulls depending on what shares a batch."""
    version = register_colours("batched", fault="nan")
    answers = []
    for rows in (1, 2, 3, 1000):
        with spark_session.settings(
            spark, {"spark.sql.execution.arrow.maxRecordsPerBatch": str(rows)}
        ):
            score(spark, filled, version)
        answered = scorer.version_predictions(
            snapshots.required(filled, "predictions").read(spark), version
        )
        answers.append(answered.orderBy("image_id").drop("scored_at").collect())
        forget(filled, version)
    assert all(answers[0] == other for other in answers[1:])
    assert 1 == sum(row.label is None and row.top_scores is None for row in answers[0])


def forget(lake, version):
    table = deltalake.DeltaTable(f"{lake}/predictions")
    table.delete(f"model_name = '{version.name}' AND model_version = {version.version}")
