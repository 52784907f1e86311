"""The rules for a micro-batch that failed, one row each."""

from dataclasses import replace

import pytest

from mlproject.scoring.decision import Failure, Step, next_step

RAISED = Failure("raised", 0, 1000, False, False, 0, False, True, False)
CRASHED = Failure("crashed", 2, 1000, False, True, 0, False, True, False)
ONE_IMAGE = replace(CRASHED, images=1)

RULES = {
    "a version that raises is scored through the guard": (RAISED, {}, Step.GUARD),
    "so is one that serves": (RAISED, {"may_quarantine": True}, Step.GUARD),
    "so is one that crashed before": (RAISED, {"crashes": 1}, Step.GUARD),
    "one that raises through the guard too cannot be loaded": (
        RAISED,
        {"guarded": True},
        Step.REFUSE,
    ),
    "no image is blamed for what raises through the guard": (
        RAISED,
        {"guarded": True, "images": 1, "may_quarantine": True, "predicted_others": True},
        Step.REFUSE,
    ),
    "a first crash may be the machine's fault": (CRASHED, {"crashes": 1}, Step.RETRY),
    "so may the first crash of a version that does not serve": (
        CRASHED,
        {"crashes": 1, "may_quarantine": False},
        Step.RETRY,
    ),
    "so may a first hang": (CRASHED, {"fault": "hung", "crashes": 1}, Step.RETRY),
    "the guard does not count as a crash": (CRASHED, {"crashes": 1, "guarded": True}, Step.RETRY),
    "a second crash is the fault of a version that does not serve": (
        CRASHED,
        {"may_quarantine": False},
        Step.REFUSE,
    ),
    "of one image too": (ONE_IMAGE, {"may_quarantine": False}, Step.REFUSE),
    "a second hang is the version's fault, as each try takes long": (
        CRASHED,
        {"fault": "hung"},
        Step.REFUSE,
    ),
    "also when one image hangs it": (
        ONE_IMAGE,
        {"fault": "hung", "predicted_others": True},
        Step.REFUSE,
    ),
    "the serving version's micro-batch is split": (CRASHED, {}, Step.SPLIT),
    "down to two images": (CRASHED, {"images": 2}, Step.SPLIT),
    "beside three others that crash": (CRASHED, {"suspects": 2}, Step.SPLIT),
    "a fourth image that crashes is the version's fault": (
        CRASHED,
        {"suspects": 3, "predicted_others": True},
        Step.REFUSE,
    ),
    "whether it was found alone or not": (
        ONE_IMAGE,
        {"suspects": 3, "predicted_others": True},
        Step.REFUSE,
    ),
    "an image that crashes alone is quarantined when others are predicted": (
        ONE_IMAGE,
        {"predicted_others": True},
        Step.QUARANTINE,
    ),
    "but not when the scoring is to end, which may have ended its worker": (
        ONE_IMAGE,
        {"predicted_others": True, "stopped": True},
        Step.STOP,
    ),
    "nor is a version refused then": (CRASHED, {"fault": "hung", "stopped": True}, Step.STOP),
    "as the third at most": (
        ONE_IMAGE,
        {"suspects": 2, "predicted_others": True},
        Step.QUARANTINE,
    ),
    "it waits as long as that is not known": (ONE_IMAGE, {}, Step.POSTPONE),
    "a version that has predicted no other image is at fault itself": (
        ONE_IMAGE,
        {"others_left": False},
        Step.REFUSE,
    ),
    "a guarded version's crashes are split as well": (CRASHED, {"guarded": True}, Step.SPLIT),
}


@pytest.mark.parametrize("rule", RULES)
def test_a_micro_batch_that_failed(rule):
    failure, facts, expected = RULES[rule]
    assert expected == next_step(replace(failure, **facts))
