"""The command `rescore` on real tables, workers and runs: limits, states in MLflow, failures."""

import json
import os
import re
import signal
from pathlib import Path

import pytest

from mlproject.ingestion import new_images, source_listing
from mlproject.rollout import ledger
from mlproject.versions import registry
from tests.conftest import photo, photos, start_command
from tests.support.commands import run_command
from tests.support.versions import register_colours

pytestmark = pytest.mark.spark

POINTER = "models:/rolled@champion"


@pytest.fixture(scope="module")
def versions(store):
    return [register_colours("rolled", reverse=reverse) for reverse in (False, True)]


@pytest.fixture
def filled(spark, lake, tmp_path):
    photos(tmp_path / "source", 8, "red")
    new_images.ingest_pending(spark, lake, source_listing.listing(str(tmp_path / "source")))
    return lake


def rescore(lake, *options, code=0):
    """What the command prints; where it does not end well, its errors."""
    words = ("--lake", lake, "--pointers", POINTER, *options)
    result = run_command("rescore", *words, code=code)
    return result.stderr if code else result.stdout


def point(client, version):
    registry.move(client, version, alias="champion")


def rollout(client, lake):
    """The run of the last row of the ledger."""
    return client.get_run(ledger.read(lake).rows(POINTER)[-1].run_id)


def test_a_roll_out_is_one_run_over_all_that_scored_it(client, filled, versions):
    point(client, versions[0])
    output = rescore(filled, "--max_images", "3")
    assert "3 images scored" in output
    assert "no version serves, as before; models:/rolled/1 has 5 images left" in output
    begun = rollout(client, filled)
    assert ("SCHEDULED", "scoring", "0.3750") == (
        begun.info.status,
        begun.data.tags["mlproject.state"],
        begun.data.tags["mlproject.coverage"],
    )
    output = rescore(filled, "--plan", "true", "--json", "true", "--max_images", "2")
    [planned] = json.loads(output)
    assert ("score", 5, 3) == (planned["action"], planned["version"]["missing"], planned["left"])
    rescore(filled)
    ended = rollout(client, filled)
    assert (begun.info.run_id, "FINISHED", "serving") == (
        ended.info.run_id,
        ended.info.status,
        ended.data.tags["mlproject.state"],
    )
    named = {key: ended.data.tags[f"mlproject.{key}"] for key in ("pointer", "version", "model_id")}
    assert {
        "pointer": POINTER,
        "version": "models:/rolled/1",
        "model_id": versions[0].model_id,
    } == named
    history = [point.value for point in client.get_metric_history(ended.info.run_id, "coverage")]
    assert (0.0, 1.0) == (min(history), max(history))
    tags = client.get_model_version("rolled", "1").tags
    assert ("serving", "1.0000") == (tags["mlproject.state"], tags["mlproject.coverage"])


def test_bytes_and_minutes_bound_a_run_too(client, filled, versions):
    point(client, versions[0])
    assert "1 images scored" in rescore(filled, "--max_bytes", "1")
    assert "nothing was scored" in rescore(filled, "--max_minutes", "0.000001")
    assert 7 == ledger.read(filled).rows(POINTER)[-1].covered.missing


def test_a_version_whose_files_changed_fails_and_the_serving_version_stays(
    client, filled, versions
):
    changed = register_colours("rolled")
    point(client, versions[0])
    rescore(filled)
    point(client, changed)
    rescore(filled, "--max_images", "1")  # the first scoring notes what its files are
    location = client.get_logged_model(changed.model_id).artifact_location
    file = Path(location.removeprefix("file://")) / "colour_model.py"
    file.write_text(file.read_text(encoding="utf-8") + "\n# changed\n", encoding="utf-8")
    assert "are not those that were promoted" in rescore(filled, code=3)
    run = rollout(client, filled)
    assert ("FAILED", "failed") == (run.info.status, run.data.tags["mlproject.state"])
    tags = client.get_model_version("rolled", str(changed.version)).tags
    assert "are not those that were promoted" in tags["mlproject.reason"]
    assert versions[0].version == ledger.read(filled).serving(POINTER).version.version


def test_a_version_without_files_is_an_error_and_may_have_them_again(client, filled, versions):
    lost = register_colours("rolled")
    location = client.get_logged_model(lost.model_id).artifact_location.removeprefix("file://")
    Path(location).rename(f"{location}.away")
    point(client, lost)
    for pointers in (POINTER, ""):  # one of the ledger is reported as one that is named
        assert "cannot be read now" in rescore(filled, "--pointers", pointers, code=2)
    Path(f"{location}.away").rename(location)
    rescore(filled)
    assert lost.version == ledger.read(filled).serving(POINTER).version.version


def test_a_crash_fails_the_version_and_the_serving_version_predicts_new_images(
    spark, client, filled, versions, tmp_path
):
    point(client, versions[0])
    rescore(filled)
    ill = register_colours("rolled", fault="all_killed")
    (tmp_path / "source" / "blue.jpg").write_bytes(photo((30, 30, 200), 7))
    new_images.ingest_pending(spark, filled, source_listing.listing(str(tmp_path / "source")))
    point(client, ill)
    errors = rescore(filled, code=3)
    assert re.search(r"2 times a worker process died.*The serving version stays", errors)
    now = ledger.read(filled).serving(POINTER)
    assert (versions[0].version, 9) == (now.version.version, now.covered.predicted)


def test_an_image_that_kills_workers_of_the_serving_version_does_not_hold_up_the_others(
    spark, client, filled, versions, tmp_path
):
    ill = register_colours("rolled", fault="crashes")
    point(client, ill)
    rescore(filled)
    (tmp_path / "source" / "blue.jpg").write_bytes(photo((30, 30, 200), 7))
    (tmp_path / "source" / "green.jpg").write_bytes(photo((30, 200, 30), 8))
    new_images.ingest_pending(spark, filled, source_listing.listing(str(tmp_path / "source")))
    rescore(filled)
    now = ledger.read(filled).serving(POINTER)
    assert (ill.version, 10, 1) == (now.version.version, now.covered.predicted, now.covered.errors)

    (tmp_path / "source" / "other.jpg").write_bytes(photo((30, 30, 190), 9))
    new_images.ingest_pending(spark, filled, source_listing.listing(str(tmp_path / "source")))
    point(client, versions[0])
    rescore(filled)  # for want of others nobody knows whose fault that one is
    now = ledger.read(filled).serving(POINTER)
    assert (versions[0].version, 11) == (now.version.version, now.covered.predicted)
    assert not client.search_runs(
        [client.get_experiment_by_name("tests").experiment_id], "attributes.status = 'RUNNING'"
    )


def test_sigterm_ends_after_the_micro_batch_and_marks_the_run(client, filled, versions, tmp_path):
    point(client, versions[1])
    process = start_command("rescore", "--lake", filled, "--pointers", POINTER, cwd=tmp_path)
    while not ledger.read(filled).entries:
        assert process.poll() is None
    os.kill(process.pid, signal.SIGTERM)
    output, _ = process.communicate(timeout=120)
    assert (130, True) == (process.returncode, "what was committed stays" in output)
    assert 1 == output.count("Stopping after the current commit")
    [last] = client.search_runs(
        [client.get_experiment_by_name("tests").experiment_id],
        "tags.`mlproject.verb` = 'rescore'",
        max_results=1,
    )
    assert "KILLED" == last.info.status
    rescore(filled)
    assert versions[1].version == ledger.read(filled).serving(POINTER).version.version
