"""The command `ingest` from outside: its parameters, its metrics, and signals."""

import signal
from pathlib import Path

import mlflow
import pytest

from mlproject.lake import queries
from tests.conftest import output_of, photo, photos, start_command
from tests.support.commands import run_command

pytestmark = pytest.mark.spark


@pytest.fixture
def source(tmp_path):
    """Three photos, an empty file, one on its way, and a hidden one."""
    folder = photos(tmp_path / "source", 3)
    (folder / "empty.jpg").touch()
    (folder / "comes.jpg.part").write_bytes(photo((1, 2, 3)))
    (folder / ".hidden.jpg").write_bytes(photo((1, 2, 3)))
    return folder


def ingested(source, lake, *more):
    """What the command prints, and the metrics of its run."""
    words = ("--source", str(source), "--lake", lake, "--settle", "0", *more)
    output = run_command("ingest", *words).stdout
    run = mlflow.MlflowClient().get_run(mlflow.last_active_run().info.run_id)
    return output, run.data.metrics


def paths(lake):
    return queries.query(lake, "SELECT path FROM images", ["images"])["path"].to_pylist()


def test_a_plan_and_an_ingest_log_the_same_numbers_and_a_plan_writes_nothing(
    spark, store, source, lake
):
    output, planned = ingested(source, lake, "--plan", "true")
    assert "To read: 3 new and 0 changed of 3 image files" in output
    assert [] == [file for file in Path(lake).iterdir() if file.name[0] != "."]
    assert (3, 3, 0) == (planned["files"], planned["new"], planned["changed"])
    assert (2, 1) == (planned["waiting"], planned["skipped"])
    output, done = ingested(source, lake)
    assert "Ingested 3 of 3" in output
    assert planned.items() <= done.items()
    assert (3, 0) == (done["images"], done["errors"])
    (source / "red/000.jpg").write_bytes(photo((9, 9, 9), 9))
    _, done = ingested(source, lake)
    assert (0, 1, 1) == (done["new"], done["changed"], done["images"])


def test_nothing_new_starts_no_spark(spark, store, source, lake, monkeypatch):
    ingested(source, lake)
    with monkeypatch.context() as patch:
        patch.setattr("mlproject.integrations.spark_session.session", None)
        output, _ = ingested(source, lake)
    assert "Nothing new among 3 image files. Left: 1 empty, 1 settling, 1 skipped." in output


def test_removed_files_are_marked_and_ingested_files_cleaned_with_the_options(
    spark, store, source, lake
):
    ingested(source, lake)
    (source / "red/000.jpg").unlink()
    output, marked = ingested(source, lake, "--on_missing", "mark")
    assert (1, True) == (marked["gone"], "Marked 1 files as gone" in output)
    cleaning = ("--clean_source", "delete", "--clean_after", "0")
    words = ("--source", str(source), "--lake", lake, *cleaning)
    assert "given or kept by the source" in run_command("ingest", *words, code=2).stderr
    output, cleaned = ingested(source, lake, *cleaning, "--on_missing", "keep")
    assert (2, True) == (cleaned["cleaned"], "Cleaned 2 files from the source" in output)
    assert [] == list((source / "red").iterdir())
    assert 3 == len(paths(lake))


def test_labels_that_match_no_image_are_reported(spark, store, source, lake, tmp_path):
    (tmp_path / "labels.csv").write_text("path,label\nred/000.jpg,rose\nred/nowhere.jpg,rose\n")
    words = ("--labels", str(tmp_path / "labels.csv"))
    output, _ = ingested(source, lake, *words)
    assert "1 of 2 labels match no image, for example" in output


@pytest.mark.parametrize(
    ("options", "part"),
    [
        (("--include", "*.gif"), "it is hidden, no regular file, or the options leave it"),
        (("--include", "tiff,raw/"), "The options are include=tiff,raw/ and exclude=none"),
        (("--exclude", "*.jpg"), "and exclude=*.jpg"),
    ],
)
def test_a_source_of_which_no_file_is_taken_is_one_line_and_changes_nothing(
    spark, store, tmp_path, lake, options, part
):
    source = photos(tmp_path / "photos", 2)
    words = ("--source", str(source), "--lake", lake, "--settle", "0")
    for plan in ("true", "false"):
        errors = run_command("ingest", *words, *options, "--plan", plan, code=2).stderr
        assert f"No file of {source} is taken (2 skipped), for example {source}/red/00" in errors
        assert part in errors
        assert 1 == len(errors.splitlines())
    assert "Ingested 2 of 2" in run_command("ingest", *words).output
    # What was in it once may be taken away, and something else lie there.
    for file in (source / "red").iterdir():
        file.rename(file.with_suffix(".txt"))
    assert "No image files were found" in run_command("ingest", *words).output


def test_an_ingest_of_the_folder_in_which_all_lies_takes_nothing_of_its_own(tmp_path):
    photos(tmp_path, 2)
    words = ("--source", ".", "--lake", "red/lake", "--settle", "0", "--include", "*")
    store = {"MLFLOW_TRACKING_URI": "sqlite:///runs.db", "MLFLOW_EXPERIMENT_ID": "0"}
    store["MLFLOW_EXPERIMENT_NAME"] = "Default"
    for found in ("Ingested 2 of 2", "Nothing new among 2"):
        ended = start_command("ingest", *words, cwd=tmp_path, **store)
        printed = output_of(ended)
        assert f"{found} image files" in printed
        assert "2 output" in printed


@pytest.mark.parametrize("what", ["log", "data"])
def test_a_lake_that_was_deleted_half_is_one_clear_line(spark, store, source, lake, what):
    ingested(source, lake)
    for number in range(2):  # the log's first file goes, and a later one stays
        (source / f"{number}.jpg").write_bytes(photo((1, 2, 3), number))
        ingested(source, lake)
    images = Path(lake, "images")
    log = images / "_delta_log" / f"{0:020}.json"
    for file in images.glob("*.parquet") if what == "data" else [log]:
        file.unlink()
    words = ("--source", str(source), "--lake", lake, "--settle", "0")
    errors = run_command("ingest", *words, code=2).stderr
    assert "cannot be read" in errors
    assert 1 == len(errors.splitlines())


def test_two_ingests_at_once_wait_for_each_other_and_double_nothing(store, source, tmp_path):
    words = ("--source", "source", "--settle", "0", "--max_files", "1")
    both = [start_command("ingest", *words, cwd=tmp_path) for _ in range(2)]
    output = [process.communicate(timeout=300)[0] for process in both]
    assert [0, 0] == [process.returncode for process in both], output
    assert 1 == sum("Ingested 3 of 3" in words for words in output), output
    assert 1 == sum("Nothing new among 3" in words for words in output), output
    found = paths(str(tmp_path / "lake"))
    assert len(found) == len(set(found)) == 3


@pytest.mark.parametrize("mode", ["watch", "once"])
def test_ctrl_c_leaves_what_was_committed_and_the_next_ingest_does_the_rest(
    spark, store, source, tmp_path, mode
):
    words = ("--source", "source", "--settle", "0", "--max_files", "1")
    process = start_command("ingest", *words, "--mode", mode, cwd=tmp_path)
    for line in process.stdout:
        if line.startswith("ingest: 1 of 3"):
            break
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=120)
    assert "Traceback" not in output
    expected, code = (
        ("Stopped after", 0) if mode == "watch" else ("stopped; what was committed", 130)
    )
    assert (code, True) == (process.returncode, expected in output), output
    assert 1 <= len(paths(str(tmp_path / "lake"))) <= 3
    ingested(source, str(tmp_path / "lake"))
    assert 3 == len(paths(str(tmp_path / "lake")))
