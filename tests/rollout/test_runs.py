"""The MLflow runs of roll-outs, of a real store; rows are written in place of scoring."""

import contextlib

import mlflow
import pytest

from mlproject.errors import RefusedError
from mlproject.rollout import ledger
from mlproject.rollout.runs import RolloutRuns, record_missed
from mlproject.versions.version_files import Files
from tests.support.lakes import add_images, image_id
from tests.support.rollouts import POINTER, Scorer, point, reconcile


@pytest.fixture
def parent(store):
    with mlflow.start_run() as run:
        yield run


@pytest.fixture
def runs(client, parent):
    return RolloutRuns(client, parent)


def run_of_last_row(client, lake):
    return client.get_run(ledger.read(lake).rows(POINTER)[-1].run_id)


def facts(run):
    return run.info.status, run.data.tags["mlproject.state"], run.data.tags["mlproject.coverage"]


def test_a_roll_out_is_a_child_run_with_its_state_in_tags(client, lake, versions, parent, runs):
    add_images(lake, range(10))
    point(client, versions[0])
    reconcile(client, lake, runs=runs)
    run = run_of_last_row(client, lake)
    assert ("FINISHED", "serving", "1.0000") == facts(run)
    expected = {
        "mlflow.parentRunId": parent.info.run_id,
        "mlproject.verb": "rollout",
        "mlproject.pointer": POINTER,
        "mlproject.version": "models:/photos/1",
        "mlproject.model_id": versions[0].model_id,
        "mlproject.reason": "the first version",
    }
    assert expected == {name: run.data.tags[name] for name in expected}
    tags = client.get_model_version("photos", "1").tags
    assert ("serving", "1.0000") == (tags["mlproject.state"], tags["mlproject.coverage"])


def test_a_roll_out_that_continues_later_is_scheduled_and_keeps_its_run(
    client, lake, versions, parent
):
    add_images(lake, range(10))
    point(client, versions[0])
    first = RolloutRuns(client, parent)
    reconcile(client, lake, Scorer(lake, most=4), runs=first)
    first.ended(stopped=False)
    begun = run_of_last_row(client, lake)
    assert ("SCHEDULED", "scoring", "0.4000") == facts(begun)
    reconcile(client, lake, runs=RolloutRuns(client, parent))
    ended = run_of_last_row(client, lake)
    assert (begun.info.run_id, "FINISHED") == (ended.info.run_id, ended.info.status)


def test_a_failed_version_has_a_failed_run_with_the_reason(client, lake, versions, runs):
    add_images(lake, range(10))
    for version in versions[:2]:
        point(client, version)
        bad = frozenset(map(image_id, range(10))) if version == versions[1] else frozenset()
        with contextlib.suppress(RefusedError):
            reconcile(client, lake, Scorer(lake, batch=10, bad=bad), runs=runs)
    run = run_of_last_row(client, lake)
    assert ("FAILED", "failed", "1.0000") == facts(run)
    assert run.data.tags["mlproject.reason"].startswith("errors on 10 of 10 images")


def test_a_superseded_version_that_served_keeps_its_end_and_one_that_did_not_is_killed(
    client, lake, versions, runs
):
    add_images(lake, range(10))
    point(client, versions[0])
    reconcile(client, lake, runs=runs)
    point(client, versions[1])
    scorer = Scorer(lake, meanwhile=[lambda: point(client, versions[2])])
    reconcile(client, lake, scorer, runs=runs)
    last = {row.version.version: row for row in ledger.read(lake).rows(POINTER)}
    status = {number: facts(client.get_run(row.run_id))[:2] for number, row in last.items()}
    assert {
        1: ("FINISHED", "superseded"),
        2: ("KILLED", "superseded"),
        3: ("FINISHED", "serving"),
    } == status


@pytest.mark.parametrize(("stopped", "status"), [(True, "KILLED"), (False, "FINISHED")])
def test_a_run_without_a_row_ends_with_the_command(client, versions, runs, stopped, status):
    run_id = runs.began(versions[0], None)
    runs.ended(stopped=stopped)
    assert status == client.get_run(run_id).info.status


def test_the_coverage_has_a_point_for_each_micro_batch(client, lake, versions, runs):
    add_images(lake, range(10))
    point(client, versions[0])
    reconcile(client, lake, Scorer(lake, most=0), runs=runs)
    run_id = ledger.read(lake).rows(POINTER)[-1].run_id
    for done in (3, 7):
        runs.micro_batch_scored(run_id, done)
    found = client.get_metric_history(run_id, "coverage")
    assert {(0, 0.0), (3, 0.3), (7, 0.7)} == {(one.step, one.value) for one in found}


def test_predictions_of_other_packages_get_a_run_of_their_own(client, versions, runs):
    one = Files("digest", (("pillow", "1", "1"),), "preprocessing")
    other = Files("digest", (("pillow", "1", "2"),), "preprocessing")
    first, again, second = (
        runs.scoring_began(versions[0], files, "local[2]") for files in (one, one, other)
    )
    assert (first, "FINISHED") == (again, client.get_run(first).info.status)
    assert "pillow==2" == client.get_run(second).data.tags["mlproject.packages"]
    assert first != second


def test_what_the_server_missed_is_recorded_later(client, lake, versions, runs):
    add_images(lake, range(10))
    point(client, versions[0])
    reconcile(client, lake, runs=runs)
    run_id = run_of_last_row(client, lake).info.run_id
    client.set_tag(run_id, "mlproject.state", "scoring")  # as it was before
    client.set_model_version_tag("photos", "1", "mlproject.state", "scoring")
    record_missed(client, ledger.read(lake), POINTER)
    assert "serving" == client.get_run(run_id).data.tags["mlproject.state"]
    assert "serving" == client.get_model_version("photos", "1").tags["mlproject.state"]


def test_a_deleted_run_is_replaced(client, lake, versions, parent):
    add_images(lake, range(10))
    point(client, versions[0])
    reconcile(client, lake, Scorer(lake, most=4), runs=RolloutRuns(client, parent))
    before = run_of_last_row(client, lake).info.run_id
    client.delete_run(before)
    reconcile(client, lake, runs=RolloutRuns(client, parent))
    after = run_of_last_row(client, lake)
    assert before != after.info.run_id
    assert ("FINISHED", "serving", "1.0000") == facts(after)
