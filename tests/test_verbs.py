"""Whole verbs, each a process as `mlflow run` starts it: kills, races, errors, stages."""

import os
import random
import signal
import time
from pathlib import Path

import deltalake
import mlflow
import pytest

from tests.conftest import photo, photos, verb
from tests.versions_for_tests import register_colours

pytestmark = pytest.mark.spark


@pytest.fixture(scope="module")
def version(store):
    return register_colours("photos")


@pytest.fixture
def source(tmp_path) -> Path:
    photos(tmp_path / "source", 30, "red")
    return photos(tmp_path / "source", 30, "green", seed=1)


def done(name: str, *arguments: str, cwd: Path, code: int = 0) -> str:
    process = verb(name, *arguments, cwd=cwd)
    said, _ = process.communicate(timeout=300)
    assert code == process.returncode, said
    return said


def predictions(folder: Path):
    return deltalake.DeltaTable(str(folder / "lake" / "predictions")).to_pandas()


def ledger(folder: Path):
    return deltalake.DeltaTable(str(folder / "lake" / "rollouts")).to_pandas().sort_values("at")


def test_the_life_of_a_pointer_by_alias_and_by_stage(version, source, tmp_path):
    other = register_colours("photos", reverse=True)
    assert "Ingested 60 of 60" in done("ingest", "--source", "source", cwd=tmp_path)
    assert "Nothing new" in done("ingest", "--source", "source", cwd=tmp_path)
    for pointer, where in (
        ("models:/photos@champion", ("--alias", "champion")),
        ("models:/photos/Production", ("--stage", "Production")),
    ):
        said = done("promote", "--model", version.uri, *where, cwd=tmp_path)
        assert f"{pointer}: nothing -> {version.uri}\n" == said
        done("rescore", "--pointers", pointer, cwd=tmp_path)
        said = done("promote", "--model", other.uri, *where, cwd=tmp_path)
        assert f"{pointer}: {version.uri} -> {other.uri}\n" == said
        done("rescore", cwd=tmp_path)
        assert other.version == ledger(tmp_path).iloc[-1].model_version
    (source / "red" / "003.jpg").write_bytes(photo((9, 9, 200), 4))
    done("ingest", "--source", "source", cwd=tmp_path)
    said = done("rescore", cwd=tmp_path)
    assert 1 == said.count(": 1 images scored")
    answers = predictions(tmp_path)
    assert not answers.duplicated(["image_id", "model_version"]).any()
    assert {version.version: 60, other.version: 61} == dict(answers.model_version.value_counts())
    now = {row.pointer: row.model_version for row in ledger(tmp_path).itertuples()}
    client = mlflow.MlflowClient()
    alias = client.get_model_version_by_alias("photos", "champion").version
    assert {int(alias)} == set(now.values())


@pytest.mark.slow
def test_score_killed_at_five_moments_and_run_again_leaves_what_one_run_leaves(
    version, source, tmp_path
):
    done("ingest", "--source", "source", cwd=tmp_path)
    arguments = ("--model", version.uri, "--wave_images", "4")
    dice = random.Random(11)
    began = time.monotonic()
    # How long a start takes, and a wrong lake told.
    assert "-e ingest" in done("score", *arguments, "--lake", "other", cwd=tmp_path, code=2)
    start = time.monotonic() - began
    partial = []
    for number in range(5):
        process = verb("score", *arguments, cwd=tmp_path)
        if number < 3:  # in the midst of the waves; Spark's JVM outlives it for a moment
            for _ in range(number + 1):
                process.stdout.readline()
            os.kill(process.pid, signal.SIGKILL)
        else:
            time.sleep(start * dice.uniform(0.5, 2))
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        partial.append(len(predictions(tmp_path)))
    assert 0 < partial[0] < 60
    done("score", *arguments, cwd=tmp_path)
    assert "nothing to score" in done("score", *arguments, cwd=tmp_path)
    killed = predictions(tmp_path)
    assert (60, 60) == (len(killed), killed.image_id.nunique())
    (tmp_path / "lake" / "predictions").rename(tmp_path / "killed")
    done("score", *arguments, cwd=tmp_path)
    told = ["image_id", "label", "score", "error"]
    undisturbed = predictions(tmp_path).sort_values("image_id")[told].reset_index(drop=True)
    assert undisturbed.equals(killed.sort_values("image_id")[told].reset_index(drop=True))


@pytest.mark.slow
def test_two_scores_of_one_version_at_once_both_end_well_and_double_nothing(
    version, source, tmp_path
):
    done("ingest", "--source", "source", cwd=tmp_path)
    both = [verb("score", "--model", version.uri, cwd=tmp_path) for _ in range(2)]
    said = [process.communicate(timeout=300)[0] for process in both]
    assert [0, 0] == [process.returncode for process in both], said
    answers = predictions(tmp_path)
    assert (60, 60) == (len(answers), answers.image_id.nunique())
    assert 1 == sum("nothing to score" in words for words in said)


@pytest.mark.parametrize(
    ("name", "arguments", "told"),
    [
        ("ingest", ("--source", "nowhere"), "is no folder"),
        ("ingest", ("--source", ".", "--lake", "file/lake"), "cannot be written"),
        ("promote", ("--model", "models:/nobody/1"), "There is no model 'nobody'"),
        ("promote", ("--model", "models:/photos/99"), "has no version 99"),
        ("score", ("--model", "models:/photos@nobody"), "has no alias 'nobody'"),
        ("rescore", ("--pointers", "models:/photos/1"), "never moves"),
        ("register", ("--framework", "torch", "--weights", "nowhere.pth"), "nowhere.pth"),
        ("register", ("--framework", "keras", "--labels", "nowhere.txt"), "nowhere.txt"),
    ],
)
def test_a_users_error_is_one_line_and_exit_code_2(version, tmp_path, name, arguments, told):
    (tmp_path / "file").write_text("no folder")
    if name == "rescore":
        photos(tmp_path / "source", 1)
        done("ingest", "--source", "source", cwd=tmp_path)
    said = done(name, *arguments, cwd=tmp_path, code=2)
    assert told in said
    assert said.startswith(f"mlproject {name}: ")
    assert 1 == len(said.splitlines())
