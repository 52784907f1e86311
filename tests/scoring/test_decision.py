"""The rules for a micro-batch that failed, one row each."""

from dataclasses import replace

import pyarrow as pa
import pytest

from mlproject.scoring.decision import Failure, Step, is_wrong_everywhere, next_step
from mlproject.scoring.micro_batches import Attempt, MicroBatch
from mlproject.scoring.workers import WorkerError

RAISED = Failure("raised", 0, 1000, False, 0, False, "none", True, False, False)
CRASHED = replace(RAISED, fault="crashed", crashes=2)
PROVEN = replace(CRASHED, is_proven=True, probe="predicted")
DEVICE = replace(PROVEN, fault="device", guarded=True)
HUNG = replace(PROVEN, fault="hung")

RULES = {
    "a version that raises is scored through the guard": (RAISED, {}, Step.GUARD),
    "so is one that has predicted images": (RAISED, {"is_proven": True}, Step.GUARD),
    "so is one that crashed before": (RAISED, {"crashes": 1}, Step.GUARD),
    "one that raises through the guard too cannot be loaded": (
        RAISED,
        {"guarded": True},
        Step.REFUSE,
    ),
    "no image is blamed for what raises through the guard": (
        RAISED,
        {"guarded": True, "images": 1, "is_proven": True, "probe": "predicted"},
        Step.REFUSE,
    ),
    "a first crash may be the machine's fault": (CRASHED, {"crashes": 1}, Step.RETRY),
    "so may a first hang": (HUNG, {"crashes": 1}, Step.RETRY),
    "the guard does not count as a crash": (CRASHED, {"crashes": 1, "guarded": True}, Step.RETRY),
    "after a second crash images that were predicted are tried": (
        PROVEN,
        {"probe": "none"},
        Step.PROBE,
    ),
    "when they crash workers too, it is the machine's fault": (
        PROVEN,
        {"probe": "failed"},
        Step.FAIL,
    ),
    "when they are predicted, the image at fault is searched": (PROVEN, {}, Step.SPLIT),
    "also through the guard": (PROVEN, {"guarded": True}, Step.SPLIT),
    "down to two images": (PROVEN, {"images": 2}, Step.SPLIT),
    "one that crashes alone is quarantined": (PROVEN, {"images": 1}, Step.QUARANTINE),
    "as the third at most": (PROVEN, {"images": 1, "suspects": 2}, Step.QUARANTINE),
    "a fourth one is the version's fault": (PROVEN, {"images": 1, "suspects": 3}, Step.REFUSE),
    "whether it is found alone or not": (PROVEN, {"suspects": 3}, Step.REFUSE),
    "of images that have an error more may crash workers": (
        PROVEN,
        {"images": 1, "suspects": 9, "have_errors": True},
        Step.QUARANTINE,
    ),
    "then those that are left keep their errors": (
        PROVEN,
        {"suspects": 10, "have_errors": True},
        Step.LEAVE,
    ),
    "a version without images that it has predicted cannot be tried": (CRASHED, {}, Step.SPLIT),
    "its single image waits until others are predicted": (CRASHED, {"images": 1}, Step.POSTPONE),
    "it is at fault itself when there are none": (
        CRASHED,
        {"images": 1, "others_left": False},
        Step.REFUSE,
    ),
    "and when a fourth part crashes workers": (CRASHED, {"suspects": 3}, Step.REFUSE),
    "but images that have an error already keep it": (
        CRASHED,
        {"images": 1, "others_left": False, "have_errors": True},
        Step.LEAVE,
    ),
    "a second hang is not searched, as each try takes long": (HUNG, {}, Step.REFUSE),
    "also of one image": (HUNG, {"images": 1}, Step.REFUSE),
    "unless images hang that were predicted": (HUNG, {"probe": "failed"}, Step.FAIL),
    "nor in a retry": (HUNG, {"have_errors": True}, Step.LEAVE),
    "a scoring that is to end may have ended its worker": (
        PROVEN,
        {"images": 1, "stopped": True},
        Step.STOP,
    ),
    "and blames no version": (HUNG, {"stopped": True}, Step.STOP),
    "a first fault of a file system or network is tried again": (
        PROVEN,
        {"fault": "machine", "crashes": 1},
        Step.RETRY,
    ),
    "a second one ends the scoring, whose images stay pending": (
        PROVEN,
        {"fault": "machine"},
        Step.FAIL,
    ),
    "also when it seems to follow one image": (
        PROVEN,
        {"fault": "machine", "images": 1},
        Step.FAIL,
    ),
    "a first fault of memory or a device is tried again, image by image": (
        DEVICE,
        {"crashes": 1, "guarded": False},
        Step.GUARD,
    ),
    "or as before, when it is scored so already": (DEVICE, {"crashes": 1}, Step.RETRY),
    "a second one is searched for its image": (DEVICE, {}, Step.SPLIT),
    "one that follows one image alone is that image's": (DEVICE, {"images": 1}, Step.QUARANTINE),
    "unless other images fail now too": (DEVICE, {"images": 1, "probe": "failed"}, Step.FAIL),
    "or no other image was predicted": (
        DEVICE,
        {"images": 1, "is_proven": False, "others_left": False},
        Step.FAIL,
    ),
    "one that follows many images is the machine's": (DEVICE, {"suspects": 3}, Step.FAIL),
    "in a retry, too, where no other was predicted": (
        DEVICE,
        {"images": 1, "is_proven": False, "others_left": False, "have_errors": True},
        Step.FAIL,
    ),
    "else the others are kept": (DEVICE, {"suspects": 10, "have_errors": True}, Step.LEAVE),
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
        is_proven=False,
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
