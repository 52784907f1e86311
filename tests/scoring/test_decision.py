"""The rules for a micro-batch that failed, one row each."""

from dataclasses import replace

import pyarrow as pa
import pytest

from mlproject.scoring.decision import Failure, Step, is_wrong_everywhere, next_step
from mlproject.scoring.micro_batches import Attempt, MicroBatch
from mlproject.scoring.workers import WorkerError

RAISED = Failure("raised", 0, 1000, False, 0, False, "none", True, False, False)
CRASHED = replace(RAISED, fault="crashed", crashes=2)
ONE_IMAGE = replace(CRASHED, images=1, has_predicted=True, others_left=False)
DEVICE = replace(CRASHED, fault="device", guarded=True)
MANY = replace(CRASHED, suspects=3)

RULES = {
    "a version that raises is scored through the guard": (RAISED, {}, Step.GUARD),
    "so is one that has predicted images": (RAISED, {"has_predicted": True}, Step.GUARD),
    "so is one that crashed before": (RAISED, {"crashes": 1}, Step.GUARD),
    "one that raises through the guard too cannot be loaded": (
        RAISED,
        {"guarded": True},
        Step.REFUSE,
    ),
    "no image is blamed for what raises through the guard": (
        RAISED,
        {"guarded": True, "images": 1, "has_predicted": True, "probe": "answered"},
        Step.REFUSE,
    ),
    "a first crash may be the machine's fault": (CRASHED, {"crashes": 1}, Step.RETRY),
    "so may a first hang": (CRASHED, {"fault": "hung", "crashes": 1}, Step.RETRY),
    "the guard does not count as a crash": (CRASHED, {"crashes": 1, "guarded": True}, Step.RETRY),
    "after a second crash the image at fault is searched": (CRASHED, {}, Step.SPLIT),
    "also in a version that has predicted others": (CRASHED, {"has_predicted": True}, Step.SPLIT),
    "also through the guard": (CRASHED, {"guarded": True}, Step.SPLIT),
    "down to two images": (CRASHED, {"images": 2}, Step.SPLIT),
    "beside two parts that crash": (CRASHED, {"suspects": 2}, Step.SPLIT),
    "a fourth part that crashes is the fault of a version that predicts nothing": (
        MANY,
        {},
        Step.REFUSE,
    ),
    "of one image too": (MANY, {"images": 1}, Step.REFUSE),
    "one that has predicted others is tried with these first": (
        MANY,
        {"has_predicted": True},
        Step.PROBE,
    ),
    "when they are predicted, it is the version's fault": (
        MANY,
        {"has_predicted": True, "probe": "answered"},
        Step.REFUSE,
    ),
    "when they crash workers too, it is the machine's": (
        MANY,
        {"has_predicted": True, "probe": "failed"},
        Step.FAIL,
    ),
    "of images that have an error already more may crash again": (
        MANY,
        {"suspects": 29, "have_errors": True},
        Step.SPLIT,
    ),
    "then all that are left keep their errors": (
        MANY,
        {"suspects": 30, "has_predicted": True, "probe": "answered", "have_errors": True},
        Step.LEAVE,
    ),
    "a second hang is not searched, as each try takes long": (
        CRASHED,
        {"fault": "hung"},
        Step.REFUSE,
    ),
    "a version that hangs is tried with images that it predicted, too": (
        CRASHED,
        {"fault": "hung", "has_predicted": True},
        Step.PROBE,
    ),
    "which it may predict again": (
        ONE_IMAGE,
        {"fault": "hung", "probe": "answered"},
        Step.REFUSE,
    ),
    "or not": (ONE_IMAGE, {"fault": "hung", "probe": "failed"}, Step.FAIL),
    "when one image crashes alone, images that were predicted are tried": (
        ONE_IMAGE,
        {},
        Step.PROBE,
    ),
    "also while others are left": (ONE_IMAGE, {"others_left": True}, Step.PROBE),
    "it waits for others when none was predicted": (
        ONE_IMAGE,
        {"has_predicted": False, "others_left": True},
        Step.POSTPONE,
    ),
    "it is quarantined when they are predicted again": (
        ONE_IMAGE,
        {"probe": "answered"},
        Step.QUARANTINE,
    ),
    "as the third at most": (ONE_IMAGE, {"suspects": 2, "probe": "answered"}, Step.QUARANTINE),
    "again when it has this error": (
        ONE_IMAGE,
        {"probe": "answered", "have_errors": True},
        Step.QUARANTINE,
    ),
    "but not when they crash workers too": (ONE_IMAGE, {"probe": "failed"}, Step.FAIL),
    "nor when the scoring is to end, which may have ended its worker": (
        ONE_IMAGE,
        {"probe": "answered", "stopped": True},
        Step.STOP,
    ),
    "nor is a version refused then": (CRASHED, {"fault": "hung", "stopped": True}, Step.STOP),
    "a version that has predicted no other image is at fault itself": (
        ONE_IMAGE,
        {"has_predicted": False},
        Step.REFUSE,
    ),
    "a first fault of a file system or network is tried again": (
        CRASHED,
        {"fault": "machine", "crashes": 1},
        Step.RETRY,
    ),
    "a second one ends the scoring, whose images stay pending": (
        CRASHED,
        {"fault": "machine"},
        Step.FAIL,
    ),
    "also when it seems to follow one image": (
        ONE_IMAGE,
        {"fault": "machine", "probe": "answered"},
        Step.FAIL,
    ),
    "a first fault of memory or a device is tried again, image by image": (
        DEVICE,
        {"crashes": 1, "guarded": False},
        Step.GUARD,
    ),
    "or as before, when it is scored so already": (DEVICE, {"crashes": 1}, Step.RETRY),
    "a second one is searched for its image": (DEVICE, {}, Step.SPLIT),
    "one that follows one image alone is that image's": (
        ONE_IMAGE,
        {"fault": "device", "probe": "answered"},
        Step.QUARANTINE,
    ),
    "unless other images fail now too": (
        ONE_IMAGE,
        {"fault": "device", "probe": "failed"},
        Step.FAIL,
    ),
    "or no other image was predicted": (
        ONE_IMAGE,
        {"fault": "device", "has_predicted": False},
        Step.FAIL,
    ),
    "one that follows many images is the machine's": (
        MANY,
        {"fault": "device", "has_predicted": True},
        Step.FAIL,
    ),
    "a command that is to end blames no machine": (DEVICE, {"stopped": True}, Step.STOP),
}


@pytest.mark.parametrize("rule", RULES)
def test_a_micro_batch_that_failed(rule):
    failure, facts, expected = RULES[rule]
    assert expected == next_step(replace(failure, **facts))


@pytest.mark.parametrize(
    ("faults", "counts", "crashes"),
    [
        (["crashed", "crashed"], "crashed", 2),
        (["crashed", "hung"], "hung", 2),
        (["device", "crashed"], "device", 2),
        (["crashed", "device"], "device", 2),
        (["device", "machine"], "machine", 2),
        (["machine", "device"], "machine", 2),
        (["machine", "raised"], "raised", 1),
    ],
)
def test_of_several_faults_that_of_the_machine_counts(faults, counts, crashes):
    attempt = Attempt(MicroBatch(pa.table({}), 0, 7))
    for fault in faults:
        attempt = attempt.failed(WorkerError(fault, fault))
    failure = attempt.failure(
        guarded=False,
        suspects=0,
        has_predicted=False,
        have_errors=False,
        others_left=False,
        stopped=False,
    )
    assert (counts, crashes) == (failure.fault, failure.crashes)


@pytest.mark.parametrize(
    ("errors", "expected"),
    [
        ({}, False),
        ({"model_failed": 6}, False),
        ({"model_failed": 7}, True),
        ({"bad_answer": 3, "not_finite": 4}, True),
        ({"undecodable": 7}, False),
        ({"gone": 3, "empty": 4}, False),
        ({"undecodable": 6, "model_failed": 1}, True),
        ({"undecodable": 5, "model_failed": 1}, False),
    ],
)
def test_a_version_that_fails_on_all_images_that_it_can_read(errors, expected):
    assert expected == is_wrong_everywhere(7, errors)
