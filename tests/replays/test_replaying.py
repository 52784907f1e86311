import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import mlflow
import pandas as pd
import pytest

from mlproject.errors import MachineError, UserError
from mlproject.replays import replaying
from mlproject.replays.differences import differences
from mlproject.rollout.history import Prediction
from mlproject.scoring import scoring_runs, workers
from mlproject.versions import version_files
from tests.conftest import photo
from tests.support.commands import run_command
from tests.support.lakes import add, add_image, add_predictions, add_rollout, day
from tests.support.versions import register_colours

RED, GREEN, BLUE = (photo(colour) for colour in ((200, 9, 9), (9, 200, 9), (9, 9, 200)))


@pytest.fixture(scope="module")
def version(store):
    return register_colours("replayed")


def scored(client, lake, version, content, path="/a.jpg", *, at=2, **changes):
    """An image with its row, and the run of the row, as scoring makes them, but for changes."""
    image_id = add_image(lake, path, content, day(1))
    run_id = client.create_run("0").info.run_id
    log(client, run_id, version)
    model = mlflow.pyfunc.load_model(version.uri)
    [made] = model.predict(pd.DataFrame({"content": [content]})).to_dict("records")
    row = {**made, "error": made["error"] or None, "run_id": run_id, **changes}
    add_predictions(lake, version, [image_id], day(at), **row)
    return row["run_id"]


def log(client, run_id, version, **other):
    scoring_runs.describe(client, run_id, version, version_files.read(version), "local[7]")
    for name, value in other.items():  # as if it had been so then
        client.set_tag(run_id, f"mlproject.{name}", value)


def replay(client, lake, model, image="/a.jpg", tolerance=replaying.TOLERANCE):
    found = replaying.find_row(client, lake, model, image)
    return replaying.replay_row(client, lake, *found, tolerance)


def what(differences):
    return [one.what for one in differences]


def test_a_version_predicts_again_what_it_predicted(client, lake, version):
    scored(client, lake, version, RED)
    found = replay(client, lake, version.uri)
    assert ("red", (), (), ()) == (found.now.label, found.differences, found.causes, found.notes)
    assert found.then.score == found.now.score


def test_an_image_is_named_by_its_image_id_too(client, lake, version):
    scored(client, lake, version, RED)
    image_id = replaying.find_row(client, lake, version.uri, "/a.jpg")[0]
    assert () == replay(client, lake, version.uri, image_id).differences


def test_an_error_can_be_the_same_too(client, lake, version):
    scored(client, lake, version, b"no image", score=None, label=None, top_labels=None)
    found = replay(client, lake, version.uri)
    assert ("undecodable", ()) == (found.now.error, found.differences)


def test_a_score_alone_that_differs_is_reported_with_the_causes_that_remain(client, lake, version):
    scored(client, lake, version, RED, score=0.5)
    found = replay(client, lake, version.uri)
    assert ["score"] == what(found.differences)
    assert () == found.causes
    [note] = found.notes
    assert "local[7]" in note
    assert () == replay(client, lake, version.uri, tolerance=0.9).differences


def test_other_packages_are_reported_whether_the_prediction_differs_or_not(client, lake, version):
    packages = (("pillow", "12.0.0", "12.0.0"), ("mlflow", "3.17.2", "3.17.2"))
    run_id = scored(client, lake, version, RED)
    log(client, run_id, version, packages=" ".join(f"{name}=={here}" for name, _, here in packages))
    [cause] = replay(client, lake, version.uri).causes
    assert ("package pillow", "12.0.0", "13.0.0") == (cause.what, cause.then, cause.now)


def test_what_loading_writes_into_a_versions_folder_is_none_of_its_files(client, version):
    before = version_files.read(version)
    location = client.get_logged_model(version.model_id).artifact_location
    folder = Path(location.removeprefix("file://")) / "__pycache__"
    folder.mkdir(exist_ok=True)
    (folder / "colour_model.cpython-311.pyc").write_bytes(b"as Python leaves it")
    assert before == version_files.read(version)


def test_other_files_and_preprocessing_are_reported(client, lake, version):
    run_id = scored(client, lake, version, RED, label="blue")
    log(client, run_id, version, digest="d" * 64, preprocessing="p" * 64)
    found = replay(client, lake, version.uri)
    assert ["label"] == what(found.differences)
    files = version_files.read(version)
    assert [
        ("files", "d" * 64, files.digest),
        ("preprocessing", "p" * 64, files.preprocessing),
    ] == [(one.what, one.then, one.now) for one in found.causes]


def test_a_run_that_was_deleted_or_has_no_tags_is_reported(client, lake, version):
    scored(client, lake, version, RED, run_id="0" * 32)
    [note] = replay(client, lake, version.uri).notes
    assert "was deleted" in note
    run_id = client.create_run("0").info.run_id
    scored(client, lake, version, GREEN, "/b.jpg", run_id=run_id)
    [note] = replay(client, lake, version.uri, "/b.jpg").notes
    assert "does not name them" in note


def test_preprocessing_is_the_config_and_the_packaged_code(version, store, tmp_path):
    one = version_files.read(register_colours("replayed"))
    other = version_files.read(register_colours("replayed", reverse=True))
    assert version_files.read(version).preprocessing == one.preprocessing
    assert one.digest != version_files.read(version).digest  # an MLmodel has its id and times
    assert one.preprocessing != other.preprocessing


def test_a_fault_of_the_machine_is_no_prediction(client, lake, store, tmp_path):
    version = register_colours("replayed", fault="memory", mended=tmp_path / "mended")
    add_predictions(lake, version, [add_image(lake, "/a.jpg", BLUE, day(1))], day(2), label="red")
    with pytest.raises(MachineError, match="MemoryError"):
        replay(client, lake, version.uri)


def test_a_version_that_raises_gives_model_failed_and_its_exception(client, lake, store):
    raising = register_colours("replayed", fault="raises")
    image_id = add_image(lake, "/a.jpg", BLUE, day(1))
    add_predictions(lake, raising, [image_id], day(2), error="model_failed")
    found = replay(client, lake, raising.uri)
    assert ("model_failed", ()) == (found.now.error, found.differences)
    assert "ValueError: no blue, please" in found.notes[0]


@pytest.mark.parametrize(("fault", "error"), [("nan", "not_finite"), ("sum", "bad_answer")])
def test_an_invalid_prediction_has_the_error_that_scoring_gives_it(
    client, lake, store, fault, error
):
    wrong = register_colours("replayed", fault=fault)
    image_id = add_image(lake, "/a.jpg", BLUE, day(1))
    add_predictions(lake, wrong, [image_id], day(2), error=error)
    found = replay(client, lake, wrong.uri)
    assert (error, ()) == (found.now.error, found.differences)


def predicted(*top, error=None):
    label, score = top[0] if top else (None, None)
    return Prediction(None, label, score, tuple(top), error, "", day(1))


@pytest.mark.parametrize(
    ("then", "now", "expected"),
    [
        (predicted(("a", 0.5)), predicted(("a", 0.5 + 1e-6)), []),
        (predicted(("a", 0.5)), predicted(("a", 0.6)), ["score", "top_scores"]),
        (
            predicted(("a", 0.6), ("b", 0.2), ("c", 0.2)),
            predicted(("a", 0.6), ("b", 0.2)),
            ["top_scores"],
        ),
        # Labels with equal scores change places, and one takes the last place of another.
        (predicted(("a", 0.6), ("b", 0.2)), predicted(("a", 0.6), ("c", 0.2)), []),
        (
            predicted(("a", 0.6), ("b", 0.2), ("c", 0.2)),
            predicted(("a", 0.6), ("c", 0.2), ("b", 0.2)),
            [],
        ),
        (
            predicted(("a", 0.6), ("b", 0.3), ("c", 0.1)),
            predicted(("a", 0.6), ("c", 0.3), ("b", 0.1)),
            ["top_labels"],
        ),
        (predicted(("a", 0.5), ("b", 0.5)), predicted(("b", 0.5), ("a", 0.5)), ["label"]),
        (
            predicted(("a", 0.5)),
            predicted(error="empty"),
            ["label", "error", "score", "top_labels", "top_scores"],
        ),
        (predicted(error="empty"), predicted(error="undecodable"), ["error"]),
    ],
)
def test_differences_are_reported_column_by_column(then, now, expected):
    assert expected == what(differences(then, now, 1e-5))


def test_an_alias_means_its_serving_version_whatever_the_registry_has(client, lake, store):
    first, second = register_colours("pointed"), register_colours("pointed", reverse=True)
    client.set_registered_model_alias("pointed", "champion", str(second.version))
    scored(client, lake, first, RED)
    add_rollout(lake, "models:/pointed@champion", first, "serving", day(3))
    found = replay(client, lake, "models:/pointed@champion")
    assert (first, "red") == (found.then.version, found.now.label)


def test_of_a_model_deleted_and_made_again_each_version_1_is_replayed(client, lake, store):
    old = register_colours("twice")
    scored(client, lake, old, RED)
    client.delete_registered_model("twice")
    found = replay(client, lake, "models:/twice/1")
    assert (old, ()) == (found.then.version, found.differences)
    assert "the registry has no models:/twice/1" in found.notes[0]
    new = register_colours("twice", reverse=True)
    found = replay(client, lake, "models:/twice/1")
    assert (old, "red") == (found.then.version, found.now.label)
    assert f"another model now ({new.model_id})" in found.notes[0]
    scored(client, lake, new, RED, "/same.jpg", at=3)
    for model, made_by in (("models:/twice/1", new), (f"models:/{old.model_id}", old)):
        found = replay(client, lake, model)
        assert (made_by, ()) == (found.then.version, found.differences)


def test_of_a_path_with_several_contents_the_newest_is_meant_and_the_others_are_named(
    client, lake, version
):
    scored(client, lake, version, RED)
    old = replaying.find_row(client, lake, version.uri, "/a.jpg")[0]
    add_image(lake, "/a.jpg", GREEN, day(5))
    with pytest.raises(UserError, match=f"has no row of image .* older contents .* {old}"):
        replay(client, lake, version.uri)
    assert "red" == replay(client, lake, version.uri, old).now.label


@pytest.mark.parametrize(
    ("model", "image", "expected"),
    [
        ("models:/replayed/1", "/nowhere.jpg", "have no image"),
        ("models:/replayed/1", "e" * 64, "was erased at"),
        ("models:/replayed/99", "/a.jpg", "has no version 99"),
        ("models:/other/1", "/a.jpg", r"There is no model 'other'"),
        ("models:/replayed/1", "/b.jpg", r"has no row .* \(versions that have one: models:/mine/1"),
    ],
)
def test_an_error_is_one_line(client, lake, version, model, image, expected):
    scored(client, lake, version, RED)
    other = add_image(lake, "/b.jpg", GREEN, day(1))
    add_predictions(lake, dataclasses.replace(version, name="mine"), [other], day(1), label="green")
    add(lake, "erased", {"image_id": "e" * 64, "size_bytes": 1, "at": day(3)})
    with pytest.raises(UserError, match=expected) as error:
        replay(client, lake, model, image)
    assert 1 == len(str(error.value).splitlines())


def test_without_the_bytes_nothing_is_replayed_except_that_they_are_gone(client, lake, version):
    image_id = add_image(lake, "/gone.jpg", RED, day(1), inline=False)
    add_predictions(lake, version, [image_id], day(2), error="gone")
    assert () == replay(client, lake, version.uri, image_id).differences
    for content, facts in ((GREEN, {"label": "green"}), (b"no image", {"error": "undecodable"})):
        other = add_image(lake, "/away.jpg", content, day(1), inline=False)
        add_predictions(lake, version, [other], day(2), **facts)
        with pytest.raises(UserError, match="cannot be read now"):
            replay(client, lake, version.uri, other)


def test_the_command_prints_what_differs_in_a_table_of_100_columns_and_fails(
    client, lake, version, monkeypatch
):
    run_id = scored(client, lake, version, RED, label="blue" * 40)
    log(client, run_id, version, digest="d" * 64)
    scored(client, lake, version, GREEN, "/b.jpg", score=0.5)
    for name, value in workers.ENVIRONMENT.items():  # which the command sets, for this test only
        monkeypatch.setenv(name, value)
    output = ""
    for image, differs in (("/a.jpg", "label"), ("/b.jpg", "score")):
        words = ("--model", version.uri, "--image", image, "--lake", lake)
        result = run_command("replay", *words, code=3)
        assert differs in result.stderr
        output += result.stdout
    assert 100 >= max(map(len, output.splitlines()))
    for words in ("label", "differs", "same", "Changed since then", "files", "What remains"):
        assert words in output


def test_as_a_process_it_exits_with_3_when_the_prediction_differs_else_with_0(
    client, lake, version, tmp_path
):
    scored(client, lake, version, RED)
    scored(client, lake, version, GREEN, "/b.jpg", label="blue")
    both = [("/a.jpg", 0, True), ("/b.jpg", 3, False)]
    for image, code, same in both:
        command = [sys.executable, "-m", "pipelines.replay", "--model", version.uri, "--json"]
        command += ["--image", image, "--lake", lake]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert code == done.returncode, done.stderr
        assert same == json.loads(done.stdout)["same"]
    expected = f"mlproject replay: {version.uri} predicts other values now: label"
    assert expected == done.stderr.splitlines()[-1]
