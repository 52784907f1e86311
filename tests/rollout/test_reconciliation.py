"""The states of a roll-out: real tables and a real registry, rows in place of scoring."""

import contextlib
from dataclasses import replace

import pytest

from mlproject.errors import RefusedError, UserError
from mlproject.lake import queries, snapshots
from mlproject.rollout import ledger
from tests.support.lakes import add_images, add_predictions, add_rollout, image_id, predicted_by
from tests.support.rollouts import (
    POINTER,
    Scorer,
    Scoring,
    point,
    reconcile,
    require_sound,
    serving,
    states,
)


def test_a_version_is_scored_then_served_with_its_counts(client, lake, versions):
    add_images(lake, range(10))
    point(client, versions[0])
    result = reconcile(client, lake, Scorer(lake, bad=frozenset()))
    assert (10, "serving", True) == (result.scored.images, result.state, result.switched)
    rows = ledger.read(lake).rows(POINTER)
    assert [("scoring", 0.0), ("serving", 1.0)] == [(row.state, row.coverage) for row in rows]
    assert (10, 10, 0) == tuple(
        getattr(rows[-1].covered, name) for name in ("images", "predicted", "errors")
    )


def test_the_serving_version_changes_in_one_commit_that_ends_the_version_before(
    client, lake, versions
):
    add_images(lake, range(10))
    for version in versions[:2]:
        point(client, version)
        reconcile(client, lake)
    assert [(1, "scoring"), (1, "serving"), (2, "scoring"), (1, "superseded"), (2, "serving")] == (
        states(lake)
    )
    newest = snapshots.required(lake, "rollouts")
    before = replace(newest, version=newest.version - 1)
    sql = "SELECT state FROM rollouts ORDER BY at"
    rows = queries.query(lake, sql, rollouts=before)
    assert ["scoring", "serving", "scoring"] == rows["state"].to_pylist()


def test_going_back_scores_nothing_and_switches_at_once(client, lake, versions):
    add_images(lake, range(10))
    for version in (*versions[:2], versions[0]):
        point(client, version)
        scorer = Scorer(lake)
        result = reconcile(client, lake, scorer)
    assert ([], True) == (scorer.asked, result.switched)
    assert [(2, "superseded"), (1, "serving")] == states(lake)[-2:]


def test_going_back_scores_only_what_came_since(client, lake, versions):
    add_images(lake, range(10))
    for version in versions[:2]:
        point(client, version)
        reconcile(client, lake)
    add_images(lake, range(10, 13))
    point(client, versions[0])
    assert 3 == reconcile(client, lake).scored.images  # version 1 is complete as soon
    require_sound(lake)


def test_a_version_whose_alias_is_moved_is_superseded_and_keeps_its_rows(client, lake, versions):
    add_images(lake, range(10))
    point(client, versions[0])
    scorer = Scorer(lake, meanwhile=[lambda: point(client, versions[1])])
    result = reconcile(client, lake, scorer)
    assert (2, 14) == (result.version.version, result.scored.images)
    assert 4 == len(predicted_by(lake, versions[0]))
    assert [(1, "scoring"), (1, "superseded"), (2, "scoring"), (2, "serving")] == states(lake)


def test_images_that_come_meanwhile_are_predicted_by_the_serving_version_first(
    client, lake, versions
):
    add_images(lake, range(10))
    point(client, versions[0])
    reconcile(client, lake)
    point(client, versions[1])
    scorer = Scorer(lake, meanwhile=[lambda: add_images(lake, range(10, 12))])
    reconcile(client, lake, scorer)
    assert [2, 1, 2] == scorer.asked
    rows = ledger.read(lake).rows(POINTER)
    assert [(2, "scoring"), (1, "serving"), (1, "superseded"), (2, "serving")] == states(lake)[2:]
    assert [12, 12, 12] == [row.covered.predicted for row in rows[-3:]]


def test_a_kill_between_the_last_prediction_and_its_row_in_rollouts_costs_no_prediction(
    client, lake, versions
):
    add_images(lake, range(10))
    point(client, versions[0])
    add_predictions(lake, versions[0], map(image_id, range(10)))
    scorer = Scorer(lake)
    assert reconcile(client, lake, scorer).switched
    assert ([], [(1, "serving")]) == (scorer.asked, states(lake))


def test_images_that_keep_coming_do_not_hold_the_next_version_up(client, lake, versions):
    add_images(lake, range(10))
    point(client, versions[0])
    reconcile(client, lake)
    add_images(lake, [10])
    point(client, versions[1])
    scorer, count = Scorer(lake), iter(range(11, 100))
    score = scorer.score

    def while_images_come(step, stop):
        assert len(scorer.asked) < 10, scorer.asked
        if step.version.version == 1:
            add_images(lake, [next(count)])
        return score(step, stop)

    scorer.score = while_images_come
    assert "serving" == reconcile(client, lake, scorer).state
    assert 2 == serving(lake)


def test_going_back_is_not_ended_by_errors_however_many_micro_batches_it_takes(
    client, lake, versions
):
    add_images(lake, range(4))
    for version in versions[:2]:
        point(client, version)
        reconcile(client, lake)
    add_images(lake, range(4, 40))
    reconcile(client, lake)
    point(client, versions[0])
    bad = frozenset(map(image_id, range(4, 40)))
    result = reconcile(client, lake, Scorer(lake, bad=bad))
    assert (36, "serving") == (result.scored.images, result.state)


@pytest.mark.parametrize("error", ["gone", "changed"])
@pytest.mark.parametrize(("count", "least"), [(5, "0.5"), (10, "1")])
def test_images_whose_files_are_lost_are_no_fault_of_the_next_version_which_does_not_serve(
    client, lake, versions, error, count, least
):
    add_images(lake, range(10))
    point(client, versions[0])
    reconcile(client, lake)
    add_predictions(lake, versions[1], map(image_id, range(count)), error=error)
    point(client, versions[1])
    with pytest.raises(UserError, match=f"of {count} of 10 .*max_error_rate={least};"):
        reconcile(client, lake)
    assert 1 == serving(lake)
    assert (2, "failed") not in states(lake)
    reconcile(client, lake, max_error_rate=float(least))
    assert 2 == serving(lake)


@pytest.mark.parametrize(("stopped", "state"), [(True, "scoring"), (False, "failed")])
def test_workers_that_die_while_it_is_stopped_are_no_fault_of_the_version(
    client, lake, versions, stopped, state
):
    add_images(lake, range(10))
    point(client, versions[0])

    def crash(step, stop):
        raise RefusedError("2 times a worker process died")

    with pytest.raises(RefusedError) if state == "failed" else contextlib.nullcontext():
        reconcile(client, lake, Scoring(crash), stopped=stopped)
    assert state == states(lake)[-1][1]


def test_trouble_with_the_serving_version_is_reported_beside_a_version_that_failed_before(
    client, lake, versions
):
    add_images(lake, range(10))
    point(client, versions[0])
    reconcile(client, lake)
    add_rollout(lake, POINTER, versions[1], "failed", reason="too slow")
    point(client, versions[1])
    add_images(lake, range(10, 12))

    def away(step, stop):
        raise UserError("its files cannot be had now")

    with pytest.raises(UserError, match=r"failed before \(too slow\).*its files cannot be had now"):
        reconcile(client, lake, Scoring(away))
