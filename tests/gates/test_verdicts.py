"""Verdicts as a table: what was measured, the limits, and the states of the gates."""

from dataclasses import replace

import pytest

from mlproject.gates.approvals import Approval
from mlproject.gates.comparison import (
    Accuracy,
    Change,
    Difference,
    Image,
    LabelAccuracy,
    Prediction,
)
from mlproject.gates.verdicts import Comparison, Limits, Measurements, Scored, verdicts
from mlproject.versions.version_files import Files

FILES = Files("d" * 64, (), "")
OTHER_PACKAGES = Files("d" * 64, (("pillow", "1.0", "13.0.0"),), "")
SCORED = Scored("models:/photos/1", 100, 100, 0, 0, "")


def measured(**facts):
    files = {"files": FILES, "promoted_digest": FILES.digest, "reference_fault": ""}
    return Measurements(**files | facts)


def compared(candidate=SCORED, serving=SCORED, accuracy=None, difference=None):
    return measured(comparison=Comparison(None, candidate, serving, accuracy, difference))


def accuracy(correct, before, images=100):
    row = (images, correct, before)
    return Accuracy(LabelAccuracy("", *row), (LabelAccuracy("red", *row),), {})


def difference(changed, images=100):
    change = Change(
        Image("0", None, True), Prediction("a", 1, (), None), Prediction("b", 1, (), None)
    )
    return Difference(images, (change,) * changed, (), None, None, None)


TRIED = {"files": "passed", "requirements": "passed", "reference_images": "passed"}
SAMPLED = {**TRIED, "sample": "passed"}
NOTHING_LABELLED = Accuracy(None, (), {})


@pytest.mark.parametrize(
    ("facts", "limits", "expected"),
    [
        (Measurements(FILES), {}, {"files": "passed"}),
        (Measurements(FILES, promoted_digest="e" * 64), {}, {"files": "refused"}),
        (
            Measurements(FILES, approval=Approval(False, "not approved")),
            {},
            {"files": "passed", "approval": "refused"},
        ),
        (measured(), {}, TRIED),
        (measured(files=OTHER_PACKAGES), {}, {**TRIED, "requirements": "noted"}),
        (measured(reference_fault="no label"), {}, {**TRIED, "reference_images": "refused"}),
        (compared(), {}, SAMPLED),
        (compared(replace(SCORED, predictions=98)), {}, {**TRIED, "sample": "noted"}),
        (compared(replace(SCORED, failure="no memory")), {}, {**TRIED, "sample": "refused"}),
        (
            compared(serving=replace(SCORED, predictions=98)),
            {},
            {**TRIED, "baseline": "noted", "sample": "passed"},
        ),
        (
            compared(serving=None, accuracy=accuracy(90, None)),
            {},
            {**SAMPLED, "accuracy": "passed"},
        ),
        (
            compared(serving=None, accuracy=accuracy(89, None)),
            {"min_accuracy": 0.9},
            {**SAMPLED, "accuracy": "refused"},
        ),
        (compared(accuracy=NOTHING_LABELLED), {}, {**SAMPLED, "accuracy": "skipped"}),
        (
            compared(accuracy=NOTHING_LABELLED),
            {"min_accuracy": 0.1},
            {**SAMPLED, "accuracy": "refused"},
        ),
        (
            compared(accuracy=accuracy(90, 100)),
            {"min_accuracy": 0.9, "max_drop": 0.1},
            {**SAMPLED, "accuracy": "passed", "drop": "passed", "labels": "passed"},
        ),
        (
            compared(accuracy=accuracy(89, 100)),
            {"max_drop": 0.1},
            {**SAMPLED, "accuracy": "passed", "drop": "refused", "labels": "refused"},
        ),
        (
            compared(accuracy=accuracy(0, 29, images=29)),
            {"max_drop": 1},
            {**SAMPLED, "accuracy": "passed", "drop": "passed", "labels": "skipped"},
        ),
        (compared(difference=difference(100)), {}, {**SAMPLED, "changed": "passed"}),
        (
            compared(difference=difference(6)),
            {"max_changed": 0.06},
            {**SAMPLED, "changed": "passed"},
        ),
        (
            compared(difference=difference(6)),
            {"max_changed": 0.05},
            {**SAMPLED, "changed": "refused"},
        ),
        (compared(difference=difference(0, 0)), {}, {**SAMPLED, "changed": "skipped"}),
        (
            compared(difference=difference(0, 0)),
            {"max_changed": 0.5},
            {**SAMPLED, "changed": "refused"},
        ),
    ],
)
def test_each_gate_gives_its_verdict_on_what_was_measured(facts, limits, expected):
    found = verdicts(facts, Limits(**limits))
    assert list(expected.items()) == [(verdict.gate, verdict.state) for verdict in found]
