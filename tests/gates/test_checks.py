"""Gates on predictions: accuracy, drops of labels, changes, and what becomes of the scoring."""

import pytest

from mlproject.errors import MachineError, RefusedError
from mlproject.gates import verdicts
from tests.support.gates import add_labelled, found, refused, states
from tests.support.lakes import add_images, add_predictions


def raising(error):
    """A scorer that fails with this error."""

    def score(version, image_ids):
        raise error

    return score


def test_a_version_as_good_as_the_one_before_passes_each_gate(lake, versions, check):
    add_labelled(lake, versions, right=99, before=100)
    results = check(min_accuracy=0.9, max_changed=0.05)
    assert {"passed"} == set(states(results).values())
    names = [
        "files",
        "requirements",
        "reference_images",
        "sample",
        "accuracy",
        "drop",
        "labels",
        "changed",
    ]
    assert names == list(states(results))
    assert "passed" == results.outcome("block")


def test_an_accuracy_below_the_limit_is_refused_with_the_accuracy_before(lake, versions, check):
    add_labelled(lake, versions, right=89, before=90)
    results = check(min_accuracy=0.9)
    assert ["accuracy"] == refused(results)
    assert "89.0 % of 100 labelled images, before 90.0 %" == found(results, "accuracy")


def test_an_accuracy_at_the_limit_passes(lake, versions, check):
    add_labelled(lake, versions, right=90, before=100)
    assert [] == refused(check(min_accuracy=0.9, max_drop=0.1))


def test_a_drop_on_all_images_is_refused(lake, versions, check):
    add_labelled(lake, versions, right=89, before=100, of=100)
    assert ["drop", "labels"] == refused(check())


def test_a_large_drop_of_one_label_is_refused_though_the_total_hardly_drops(lake, versions, check):
    red = add_images(lake, range(400), label="red")
    green = add_images(lake, range(400, 430), label="green")
    add_predictions(lake, versions[0], red, label="red")
    add_predictions(lake, versions[0], green, label="green")
    add_predictions(lake, versions[1], red + green, label="red")
    results = check()
    assert ["labels"] == refused(results)
    assert "largest drop of a label: 100.0 %, 'green': 0 of 30 correct, before 30" == found(
        results, "labels"
    )


def test_a_label_with_few_images_is_measured_and_not_limited(lake, versions, check):
    red = add_images(lake, range(400), label="red")
    green = add_images(lake, range(400, 399 + verdicts.LABEL_IMAGES), label="green")
    add_predictions(lake, versions[0], red, label="red")
    add_predictions(lake, versions[0], green, label="green")
    add_predictions(lake, versions[1], red + green, label="red")
    results = check()
    assert [] == refused(results)
    assert ("green", 1.0) == (
        results.comparison.accuracy.labels[0].label,
        results.comparison.accuracy.labels[0].drop,
    )


def test_more_changes_than_the_limit_are_refused(lake, versions, check):
    add_labelled(lake, versions, right=94, before=100)
    assert ["changed"] == refused(check(max_changed=0.05))
    assert [] == refused(check(max_changed=0.06))


def test_changes_are_counted_on_the_sample_alone(lake, versions, check):
    ids = add_images(lake, range(20)) + add_images(lake, range(20, 40), label="red")
    for version in versions:
        add_predictions(lake, version, ids, label="red")
    results = check(sample=10)
    assert (10, 10) == (
        results.comparison.difference.images,
        results.comparison.accuracy.total.images,
    )


def test_shares_are_never_rounded_up_to_all_or_down_to_nothing():
    texts = [verdicts.percent(share) for share in (0, 0.0001, 0.5, 0.9999, 1, -0.0001)]
    assert ["0.0 %", "0.1 %", "50.0 %", "99.9 %", "100.0 %", "-0.1 %"] == texts


def test_only_missing_predictions_are_scored(lake, versions, check):
    ids = add_images(lake, range(10), label="red")
    add_predictions(lake, versions[0], ids, label="red")
    add_predictions(lake, versions[1], ids[:4], label="red")
    scored = []

    def score(version, image_ids):
        scored.append((version, sorted(image_ids)))
        add_predictions(lake, version, image_ids, label="red")

    assert "10 images, 6 of them scored now" == found(check(score=score), "sample")
    assert [(versions[1], sorted(ids[4:]))] == scored
    check(score=score)
    assert 1 == len(scored)


def test_a_version_that_cannot_be_scored_is_refused_with_the_reason(lake, versions, check):
    add_predictions(lake, versions[0], add_images(lake, range(3), label="red"), label="red")

    results = check(score=raising(RefusedError("its workers die")))
    assert (["sample"], "its workers die") == (refused(results), found(results, "sample"))


def test_a_fault_of_the_machine_is_no_verdict_on_a_version(lake, versions, check):
    add_predictions(lake, versions[0], add_images(lake, range(3), label="red"), label="red")
    with pytest.raises(MachineError, match="no memory"):
        check(score=raising(MachineError("no memory")))


def test_images_whose_files_cannot_be_read_now_are_noted_and_the_others_compared(
    lake, versions, check
):
    ids = add_images(lake, range(3), label="red")
    add_predictions(lake, versions[0], ids, label="red")
    add_predictions(lake, versions[1], ids[:2], label="red")
    results = check()
    assert ("noted", 2) == (states(results)["sample"], results.comparison.difference.images)


def test_a_version_that_fails_the_reference_images_is_refused_and_scores_nothing(
    lake, versions, check
):
    add_predictions(lake, versions[0], add_images(lake, range(3), label="red"), label="red")
    results = check(fault="empty file: a label instead of an error", score=None)
    assert (["reference_images"], None) == (refused(results), results.comparison.difference)


def test_a_version_without_a_serving_version_is_checked_alone(lake, versions, check):
    add_predictions(lake, versions[1], add_images(lake, range(10), label="red"), label="red")
    assert ["files", "requirements", "reference_images"] == list(states(check(serving=False)))[:3]
    results = check(serving=False, min_accuracy=0.9)
    assert ({}, None) == (dict.fromkeys(refused(results)), results.comparison.difference)
    assert 1.0 == results.comparison.accuracy.total.accuracy


def test_an_accuracy_that_cannot_be_measured_is_refused_where_there_is_a_limit(
    lake, versions, check
):
    add_predictions(lake, versions[1], add_images(lake, range(3)), label="red")
    assert ["accuracy"] == refused(check(serving=False, min_accuracy=0.5))
    assert "skipped" == states(check())["accuracy"]


def test_a_share_of_changes_that_cannot_be_measured_is_refused_where_there_is_a_limit(lake, check):
    assert ["changed"] == refused(check(max_changed=0.5))
    assert [] == refused(check())


def test_the_mode_decides_the_outcome_of_a_refusal(lake, versions, check):
    add_labelled(lake, versions, right=0, before=100)
    results = check()
    assert ["refused", "warned"] == [results.outcome(mode) for mode in ("block", "warn")]
    off = check(mode="off", fault="wrong")
    assert ("off", ["files"]) == (off.outcome("off"), list(states(off)))
