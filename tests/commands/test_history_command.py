import json
import os
import subprocess
import sys

import pytest

from mlproject.lake import location
from tests.support.commands import run_command
from tests.support.lakes import add_image, add_predictions, add_rollout, day, version

POINTER = "models:/photos@champion"
LONG = f"models:/photos@{'a-long-alias-' * 12}"
A, B = version(1), version(2)
REASON = "errors on 3 of 5 images that were readable before, more than max_error_rate=0.05"


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    """At two pointers A serves from day 2 and B from day 4, after it had failed once."""
    lake = location.locate_to_write(str(tmp_path_factory.mktemp("filled") / "lake"))
    images = [add_image(lake, f"/{number}.jpg", b"%d" % number, day(1)) for number in range(3)]
    for place, image in enumerate(images):
        add_predictions(
            lake, A, [image], day(1.5), label=f"red-{place}", score=0.75, run_id="run-a"
        )
    add_predictions(lake, B, [images[0]], day(3), label="blue", score=0.5)
    add_predictions(lake, B, [images[1]], day(3), error="empty")
    for pointer in (POINTER, LONG):
        add_rollout(lake, pointer, A, "serving", day(2), "the first version at this pointer")
        add_rollout(lake, pointer, B, "failed", day(3), REASON, answered=4)
        add_rollout(lake, pointer, B, "serving", day(4), f"the pointer moved from {A.uri}")
    return lake


def history(lake, **options):
    words = [word for name, value in options.items() for word in (f"--{name}", value)]
    return run_command("history", "--lake", lake, *words).stdout


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"at": "2026-01-03"},
        {"at": "2026-01-01"},
        {"image": "/0.jpg"},
        {"image": "/1.jpg", "at": "2026-01-09"},
    ],
)
def test_tables_have_at_most_100_columns_also_with_long_aliases(filled, options):
    output = history(filled, **options)
    assert 100 >= max(map(len, output.splitlines()))
    assert "a-long-alias" in output


def test_it_prints_which_version_served_when_and_why_and_which_failed(filled):
    output = history(filled, pointers=POINTER)
    words = " ".join(output.split())
    for expected in (
        "2026-01-02",
        "now",
        "2.0 d",
        "the first version",
        "failed",
        "80.0%",
        "errors on",
    ):
        assert expected in words
    assert "a-long-alias" not in output


def test_json_has_the_same(filled):
    facts = json.loads(history(filled, json="true"))
    assert sorted([POINTER, LONG]) == sorted(one["pointer"] for one in facts)
    [one] = [one for one in facts if one["pointer"] == POINTER]
    first, second = one["served"]
    assert {
        "version": A.uri,
        "model_id": A.model_id,
        "state": "serving",
        "from": day(2).isoformat(),
        "until": day(4).isoformat(),
        "seconds": 172800.0,
        "coverage": 1.0,
        "images": 5,
        "answered": 5,
        "errors": 1,
        "images_version": 3,
        "why": "the first version at this pointer",
        "run_id": "run",
    } == first
    assert (B.uri, None) == (second["version"], second["until"])
    [attempt] = one["attempts"]
    assert ("failed", REASON, 4) == (attempt["state"], attempt["why"], attempt["answered"])


def test_of_a_day_it_counts_the_predictions_of_the_serving_version(filled):
    output = history(filled, at="2026-01-03", pointers=POINTER)
    assert "red-0 1" in output
    assert "blue" not in output
    [facts] = json.loads(history(filled, at="2026-01-04", pointers=POINTER, json="true"))
    assert ({"blue": 1}, {"empty": 1}, 2) == (facts["labels"], facts["errors"], facts["answers"])
    assert (B.uri, "2026-01-04T23:59:59.999999+00:00") == (facts["version"], facts["at"])


def test_before_a_version_served_there_are_no_predictions(filled):
    assert "none" in history(filled, at="2026-01-01", pointers=POINTER)
    [facts] = json.loads(history(filled, at="2026-01-01", pointers=POINTER, json="true"))
    assert (None, 0, {}) == (facts["version"], facts["answers"], facts["labels"])


def test_of_an_image_it_prints_the_prediction_and_its_version(filled):
    then, now = (
        json.loads(history(filled, image="/0.jpg", pointers=POINTER, json="true", **at))[0]
        for at in ({"at": "2026-01-03"}, {})
    )
    assert (A.uri, "red-0", 0.75, "run-a") == tuple(
        then[key] for key in ("version", "label", "score", "run_id")
    )
    assert day(1.5).isoformat() == then["scored_at"]
    assert (B.uri, "blue", 0.5) == (now["version"], now["label"], now["score"])


def test_an_image_without_a_prediction_is_shown_as_such(filled):
    assert "no prediction" in history(filled, image="/2.jpg", pointers=POINTER)
    assert "empty" in history(filled, image="/1.jpg", pointers=POINTER)
    [facts] = json.loads(history(filled, image="/2.jpg", pointers=POINTER, json="true"))
    assert (B.uri, None, None) == (facts["version"], facts["label"], facts["scored_at"])


def test_many_labels_are_cut_in_the_table_and_whole_in_json(lake):
    for number in range(7):
        add_predictions(lake, A, [f"{number:064}"], day(1), label=f"label-{number}")
    add_rollout(lake, POINTER, A, "serving", day(2))
    assert "and 2 more" in history(lake, at="2026-01-05")
    assert 7 == len(json.loads(history(lake, at="2026-01-05", json="true"))[0]["labels"])


def test_rows_of_the_first_release_have_no_counts(lake):
    nothing = {"answered": 5, "images": 5, "errors": None, "run_id": None}
    add_rollout(lake, POINTER, A, "serving", day(2), **nothing)
    assert "100.0%" in history(lake)
    assert json.loads(history(lake, json="true"))[0]["served"][0]["images"] is None


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"at": "yesterday"}, "'yesterday' is not a time"),
        ({"pointers": "models:/nobody@x"}, "'models:/nobody@x' was never rolled out"),
        ({"image": "/nowhere.jpg"}, "have no image '/nowhere.jpg'"),
    ],
)
def test_an_error_is_one_line(filled, options, expected):
    words = [word for name, value in options.items() for word in (f"--{name}", value)]
    errors = run_command("history", "--lake", filled, *words, code=2).stderr
    assert expected in errors
    assert 1 == len(errors.splitlines())


def test_a_lake_without_rollouts_is_an_error(lake):
    result = run_command("history", "--lake", lake, code=2)
    assert "No alias is rolled out" in result.stderr


def test_it_needs_no_tracking_server_and_leaves_none_behind(filled, tmp_path):
    nowhere = {**os.environ, "MLFLOW_TRACKING_URI": "http://127.0.0.1:9"}
    command = [sys.executable, "-m", "pipelines.history", "--lake", filled, "--json"]
    done = subprocess.run(
        command, cwd=tmp_path, env=nowhere, capture_output=True, text=True, check=False
    )
    assert (0, "") == (done.returncode, done.stderr)
    assert 2 == len(json.loads(done.stdout))
    assert [] == list(tmp_path.iterdir())


WITHOUT = """
import sys
from mlproject import cli
cli.main(["history", "--lake", sys.argv[1]], standalone_mode=False)
print(sorted({"mlflow", "pyspark", "torch", "tensorflow"} & set(sys.modules)))
"""


def test_it_imports_neither_mlflow_nor_spark(filled):
    command = [sys.executable, "-c", WITHOUT, filled]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "[]" == done.stdout.splitlines()[-1]
