"""What ends or bounds a roll-out: errors, limits, kills, others at once."""

import contextlib
import random
import sqlite3
import threading

import deltalake
import pytest

from mlproject.errors import RefusedError, UserError
from mlproject.lake import queries
from mlproject.rollout import ledger
from tests.support.lakes import (
    add_images,
    add_predictions,
    image_id,
    pending,
    predicted_by,
    register,
    scored,
)
from tests.support.rollouts import (
    POINTER,
    NoRuns,
    Scorer,
    Scoring,
    point,
    reconcile,
    require_sound,
    serving,
    states,
)


def test_there_and_back_between_two_reconciliations_costs_nothing(client, lake, versions):
    add_images(lake, range(10))
    point(client, versions[0])
    reconcile(client, lake)
    before = states(lake)
    point(client, versions[1])
    point(client, versions[0])
    scorer = Scorer(lake)
    reconcile(client, lake, scorer)
    assert ([], before) == (scorer.asked, states(lake))


def test_too_many_errors_fail_a_version_and_the_serving_version_stays(client, lake, versions):
    add_images(lake, range(20))
    point(client, versions[0])
    reconcile(client, lake)
    point(client, versions[1])
    bad = frozenset(image_id(number) for number in range(3))
    with pytest.raises(RefusedError, match=r"3 of 20 .*The serving version stays models:/photos/1"):
        reconcile(client, lake, Scorer(lake, batch=20, bad=bad), max_error_rate=0.1)
    assert (1, (2, "failed")) == (serving(lake), states(lake)[-1])
    assert "errors on 3 of 20" in ledger.read(lake).entries[-1].reason


def test_errors_that_cannot_be_made_good_end_the_scoring_early(client, lake, versions):
    add_images(lake, range(40))
    point(client, versions[0])
    reconcile(client, lake)
    point(client, versions[1])
    bad = frozenset(image_id(number) for number in range(40))
    with pytest.raises(RefusedError):
        reconcile(client, lake, Scorer(lake, bad=bad))
    assert 4 == len(predicted_by(lake, versions[1]))


def test_images_that_the_version_before_could_not_predict_are_no_errors_of_the_next(
    client, lake, versions
):
    add_images(lake, range(20))
    bad = frozenset(image_id(number) for number in range(15))
    for version in versions[:2]:
        point(client, version)
        reconcile(
            client, lake, Scorer(lake, bad=bad), max_error_rate=1 if version == versions[0] else 0
        )
    assert 2 == serving(lake)


def test_a_failed_version_is_not_retried_without_the_option_retry(client, lake, versions):
    add_images(lake, range(10))
    point(client, versions[0])

    def crash(step, stop):
        raise RefusedError("2 times a worker process died")

    with pytest.raises(RefusedError, match=r"a worker process died\. No version serves yet"):
        reconcile(client, lake, Scoring(crash))
    scorer = Scorer(lake)
    with pytest.raises(RefusedError, match="failed before"):
        reconcile(client, lake, scorer)
    assert [] == scorer.asked
    assert 10 == reconcile(client, lake, scorer, retry=True).scored.images
    require_sound(lake)


def test_the_serving_version_predicts_new_images_also_while_the_next_version_has_failed(
    client, lake, versions
):
    add_images(lake, range(10))
    point(client, versions[0])
    reconcile(client, lake)
    point(client, versions[1])
    every = frozenset(map(image_id, range(20)))
    with pytest.raises(RefusedError):
        reconcile(client, lake, Scorer(lake, bad=every))
    add_images(lake, range(10, 12))
    with pytest.raises(RefusedError):
        reconcile(client, lake)
    assert 12 == ledger.read(lake).serving(POINTER).covered.predicted


def test_a_limited_run_leaves_the_version_scoring_and_the_next_goes_on(client, lake, versions):
    add_images(lake, range(10))
    point(client, versions[0])
    result = reconcile(client, lake, Scorer(lake, most=6))
    assert ("scoring", 4, None) == (result.state, result.coverage.missing, serving(lake))
    assert [0.0, 0.6] == [row.coverage for row in ledger.read(lake).rows(POINTER)]
    assert 4 == reconcile(client, lake).scored.images
    assert 1 == serving(lake)
    require_sound(lake)


def test_a_version_may_serve_before_every_image_is_predicted(client, lake, versions):
    add_images(lake, range(10))
    point(client, versions[0])
    assert "scoring" == reconcile(client, lake, Scorer(lake, most=4), min_coverage=0.9).state
    result = reconcile(client, lake, Scorer(lake, most=5), min_coverage=0.9)
    assert ("serving", 0.9) == (result.state, result.coverage.share)


def test_a_model_made_again_is_another_version(client, lake, versions):
    add_images(lake, range(10))
    point(client, versions[0])
    reconcile(client, lake)
    client.delete_registered_model("photos")
    again = register(client, "photos")
    assert again.uri == versions[0].uri
    point(client, again)
    result = reconcile(client, lake)
    assert (10, True) == (result.scored.images, result.switched)
    ids = [entry.version.model_id for entry in ledger.read(lake).rows(POINTER)]
    assert [versions[0].model_id] * 2 == ids[:2]
    assert again.model_id == ids[-1]
    require_sound(lake)


def test_the_predictions_of_a_deleted_serving_version_stay(client, lake, versions):
    add_images(lake, range(10))
    point(client, versions[0])
    reconcile(client, lake)
    client.delete_model_version("photos", "1")
    with pytest.raises(UserError, match="has no alias 'champion'"):
        reconcile(client, lake)
    assert (1, 10) == (serving(lake), len(predicted_by(lake, versions[0])))


def test_a_version_that_is_not_ready_is_reported_and_the_serving_version_stays(
    client, lake, versions, store
):
    add_images(lake, range(10))
    point(client, versions[0])
    reconcile(client, lake)
    point(client, versions[1])
    with sqlite3.connect(store / "mlflow.db") as database:
        database.execute(
            "UPDATE model_versions SET status = 'PENDING_REGISTRATION' WHERE version = 2"
        )
    with pytest.raises(UserError, match="models:/photos/2 is not ready"):
        reconcile(client, lake)
    assert 1 == serving(lake)


def test_two_reconciliations_at_once_predict_each_image_once_and_serve_once(client, lake, versions):
    add_images(lake, range(10))
    point(client, versions[0])
    reconcile(client, lake)
    point(client, versions[1])
    gate, faults = threading.Barrier(2), []

    def run(taken, lock):
        def score(step, stop):
            gate.wait(timeout=30)
            with lock:  # as the compare-and-set of `predictions` decides
                todo = [one for one in pending(lake, step.version) if one not in taken]
                taken.update(todo)
                if todo:
                    add_predictions(lake, step.version, todo)
            return scored(lake, len(todo))

        try:
            reconcile(client, lake, Scoring(score))
        except Exception as error:  # noqa: BLE001 - raised below
            faults.append(error)

    taken, lock = set(), threading.Lock()
    threads = [threading.Thread(target=run, args=(taken, lock)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [] == faults
    assert 1 == states(lake).count((2, "serving"))
    require_sound(lake)


def test_a_ledger_of_the_first_release_is_read_and_gets_the_columns_it_lacks(
    client, lake, versions
):
    add_images(lake, range(10))
    point(client, versions[0])
    reconcile(client, lake)
    old = queries.query(lake, "SELECT * FROM rollouts", ["rollouts"])
    lacking = ["images", "answered", "errors", "reason", "run_id"]
    deltalake.write_deltalake(
        f"{lake}/rollouts", old.drop_columns(lacking), mode="overwrite", schema_mode="overwrite"
    )
    now = ledger.read(lake).serving(POINTER)
    assert (1, None, "") == (now.version.version, now.covered, now.reason)
    point(client, versions[1])
    reconcile(client, lake)
    assert 2 == serving(lake)
    assert 10 == ledger.read(lake).serving(POINTER).covered.predicted


class KilledError(BaseException):
    """Stands for kill -9: nothing catches it."""


@pytest.mark.parametrize("seed", range(4))
def test_whatever_happens_in_whatever_order_the_table_is_sound_and_the_version_serves(
    client, lake, versions, seed
):
    """Kills at any call, moves, arrivals and failures, then one run without any of them."""
    dice = random.Random(seed)
    add_images(lake, range(6))
    count = 6
    for _ in range(15):
        event = dice.choice(["move", "images", "kill", "kill", "error", "limit", "none"])
        if event == "move":
            point(client, dice.choice(versions))
        if event == "images":
            add_images(lake, range(count, count + 2))
            count += 2
        scorer = Scorer(lake, batch=3, most=2 if event == "limit" else 1000)
        calls = dice.randrange(8)

        def strike(*_, event=event, left=[calls]):  # noqa: B006 - its own counter
            left[0] -= 1
            if left[0] < 0 and event == "kill":
                raise KilledError
            if left[0] < 0 and event == "error":
                raise RefusedError("a worker process died")
            return False

        score, runs = scorer.score, NoRuns()
        runs.began = lambda version, last, strike=strike: strike() or "run"
        runs.row_written = strike
        scorer.score = lambda step, stop, score=score, strike=strike: score(
            step, lambda: stop() or strike()
        )
        with contextlib.suppress(KilledError, RefusedError, UserError):
            reconcile(client, lake, scorer, runs=runs, retry=True)
        require_sound(lake)
    point(client, versions[0])
    reconcile(client, lake, retry=True)
    assert 1 == serving(lake)
    assert count == len(predicted_by(lake, versions[0]))
    require_sound(lake)
