"""Whole commands, most as processes, as `mlflow run` starts them: kills, races, errors, stages."""

from pathlib import Path

import mlflow
import pytest

from mlproject.lake import snapshots
from tests.conftest import output_of, photo, photos, start_command
from tests.support.commands import run_command
from tests.support.lakes import frame
from tests.support.versions import register_colours

pytestmark = pytest.mark.spark


@pytest.fixture(scope="module")
def version(store):
    return register_colours("photos")


@pytest.fixture
def source(tmp_path) -> Path:
    photos(tmp_path / "source", 30, "red")
    return photos(tmp_path / "source", 30, "green", seed=1)


def predictions(folder: Path):
    return frame(str(folder / "lake"), "predictions")


def ledger(folder: Path):
    return frame(str(folder / "lake"), "rollouts").sort_values("at")


def names_and_versions() -> list[tuple[str, str]]:
    return [(found.name, found.version) for found in mlflow.MlflowClient().search_model_versions()]


def test_the_life_of_a_stage_from_the_first_photo_to_a_switch(
    spark, version, source, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)

    def output_of(name, *arguments):  # in this process and its Spark session
        return run_command(name, *arguments).stdout

    other, stage = register_colours("photos", reverse=True), "models:/photos/Production"
    assert "Ingested 60 of 60" in output_of("ingest", "--source", "source", "--settle", "0")
    output = output_of("promote", "--model", version.uri, "--stage", "Production")
    assert f"{stage}: nothing -> {version.uri}\n" == output
    output_of("rescore", "--pointers", stage)
    # It turns the colours round, so the gates say no.
    output = output_of("promote", "--model", other.uri, "--stage", "Production", "--gate", "warn")
    assert f"{stage}: {version.uri} -> {other.uri}" == output.splitlines()[-1]
    (source / "red" / "003.jpg").write_bytes(photo((9, 9, 200), 4))
    assert "Ingested 1 of 60" in output_of("ingest", "--source", "source", "--settle", "0")
    # The gates have kept the predictions of the others; the version serves with the new image.
    assert ": 1 images scored" in output_of("rescore")
    answers = predictions(tmp_path)
    assert not answers.duplicated(["image_id", "model_version"]).any()
    assert {version.version: 60, other.version: 61} == dict(answers.model_version.value_counts())
    rows = ledger(tmp_path)
    served = rows[rows.state == "serving"].model_version
    assert [version.version, other.version] == list(dict.fromkeys(served))


def test_two_slots_get_the_same_number_of_images(version, source, tmp_path):
    for words in (("ingest", "--source", "source"), ("score", "--model", version.uri)):
        output_of(start_command(*words, cwd=tmp_path, SPARK_MASTER="local[2]"))
    table = snapshots.open_table(str(tmp_path / "lake" / "predictions"))
    assert [30, 30] == [file.rows for file in snapshots.active_files(table)]


@pytest.mark.slow
def test_two_scores_of_one_version_at_once_both_end_well_and_double_nothing(
    version, source, tmp_path
):
    output_of(start_command("ingest", "--source", "source", cwd=tmp_path))
    both = [start_command("score", "--model", version.uri, cwd=tmp_path) for _ in range(2)]
    output = [process.communicate(timeout=300)[0] for process in both]
    assert [0, 0] == [process.returncode for process in both], output
    answers = predictions(tmp_path)
    assert (60, 60) == (len(answers), answers.image_id.nunique())
    assert 1 == sum("nothing to score" in words for words in output)


@pytest.mark.parametrize(
    ("name", "arguments", "expected"),
    [
        ("ingest", ("--source", "nowhere"), "is not a folder"),
        ("ingest", ("--source", ".", "--lake", "file/lake"), "cannot be written"),
        ("promote", ("--model", "models:/nobody/1"), "There is no model 'nobody'"),
        ("promote", ("--model", "models:/photos/99"), "has no version 99"),
        ("score", ("--model", "models:/photos@nobody"), "has no alias 'nobody'"),
        ("register", ("--framework", "torch", "--weights", "nowhere.pth"), "nowhere.pth"),
        ("register", ("--framework", "keras", "--labels", "nowhere.txt"), "nowhere.txt"),
        ("train", ("--framework", "keras", "--weights", "nowhere.h5"), "nowhere.h5"),
    ],
)
def test_a_users_error_is_one_line_and_exit_code_2(
    version, tmp_path, monkeypatch, name, arguments, expected
):
    (tmp_path / "file").write_text("no folder")
    before = names_and_versions()
    monkeypatch.chdir(tmp_path)
    output = run_command(name, *arguments, code=2).output
    assert expected in output
    assert output.startswith(f"mlproject {name}: ")
    assert 1 == len(output.splitlines())
    assert before == names_and_versions()
