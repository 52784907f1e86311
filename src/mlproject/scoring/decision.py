"""What scoring does with a micro-batch that failed, and whose fault it is: pure functions."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Literal

from mlproject.inference.errors import BAD_ANSWER, MODEL_FAILED, NOT_FINITE

Fault = Literal["raised", "crashed", "hung", "device", "machine"]
Probe = Literal["none", "predicted", "failed", "impossible"]  # impossible: none has bytes any more

TRIES = 2  # of a micro-batch, unless the version's code raised: once may be the machine's fault
# Images of one scoring that may crash workers before it ends; more where all have an error already,
# perhaps that one.
SUSPECTS, SUSPECTS_WITH_ERROR = 3, 10
OF_THE_MACHINE = ("machine", "device")  # of several faults of a micro-batch the first here counts
OF_THE_VERSION = (MODEL_FAILED, BAD_ANSWER, NOT_FINITE)  # errors that no fault of an image explains


class Step(Enum):
    """What happens next to a micro-batch that failed."""

    RETRY = "score it once more"
    GUARD = "score it through the guarded model, which keeps an exception to its image"
    SPLIT = "score its halves, after the other micro-batches"
    POSTPONE = "score the other micro-batches first"
    PROBE = "score images again that the version has predicted: do they fail now too?"
    QUARANTINE = "give its image the error `model_failed`"
    REFUSE = "end the scoring: the version is at fault"
    FAIL = "end the scoring: the machine is at fault, and its images stay pending"
    LEAVE = "end the scoring: its images keep the errors that they have"
    STOP = "end the scoring: its images stay pending"


@dataclass(frozen=True, slots=True)
class Failure:
    """What was observed of a micro-batch that failed, and of the scoring that it belongs to."""

    fault: Fault
    """`raised`: the version's code raised; `crashed`: a worker process died; `hung`: no task ended
    in the task timeout; `device`: memory or an accelerator failed; `machine`: a file system or
    network failed."""
    crashes: int
    """How often it has failed, other than by `raised`."""
    images: int
    """Images in it."""
    guarded: bool
    """Whether it was scored through the guarded model."""
    suspects: int
    """Images that crash workers, besides it: those that were found in this scoring; of a version
    that is not proven, other parts that have crashed, no two with an image in common."""
    is_proven: bool
    """Whether the version has predicted images that can be scored again: these tell a fault of the
    machine from one of the version or an image."""
    probe: Probe
    """Whether they were scored again since it failed, and how that went."""
    others_left: bool
    """Whether micro-batches are left that may show that the version predicts others."""
    have_errors: bool
    """Whether the version has an error for its images already, and predicts them again."""
    stopped: bool
    """Whether the scoring is to end."""


def next_step(failure: Failure) -> Step:
    """What happens next; see decision 12, "Exceptions" and "Crashes", and decision 18."""
    if failure.stopped:  # what stops the command may have stopped its workers too
        return Step.STOP
    if failure.fault == "raised":  # through the guard no image can raise: the version does
        return Step.REFUSE if failure.guarded else Step.GUARD
    if failure.crashes >= TRIES:
        return _after_all_tries(failure)
    # Image by image a version needs less memory.
    return Step.GUARD if failure.fault == "device" and not failure.guarded else Step.RETRY


def _after_all_tries(failure: Failure) -> Step:
    """Looks for an image that the fault follows, once it is known that the machine has none."""
    # A probe fails where the machine does. Files and networks follow no image.
    if failure.probe == "failed" or failure.fault == "machine":
        return Step.FAIL
    if failure.is_proven and failure.probe == "none":
        return Step.PROBE
    limit = SUSPECTS_WITH_ERROR if failure.have_errors else SUSPECTS
    # A hang is not split: each try takes the task timeout.
    if failure.fault == "hung" or failure.suspects >= limit:
        return _end(failure)
    if failure.images > 1:
        return Step.SPLIT
    if failure.is_proven:
        return Step.QUARANTINE
    return Step.POSTPONE if failure.others_left else _end(failure)


def _end(failure: Failure) -> Step:
    """Who is at fault when no single image is."""
    if failure.fault == "device" and not (failure.have_errors and failure.is_proven):
        return Step.FAIL
    return Step.LEAVE if failure.have_errors else Step.REFUSE


def is_wrong_everywhere(images: int, errors: Mapping[str, int]) -> bool:
    """Whether a version has predicted nothing, and failed on each image that has no fault itself.

    Args:
        images: Images of a micro-batch.
        errors: Images among them by their error code.
    """
    failed = sum(errors.get(code, 0) for code in OF_THE_VERSION)
    return failed > 0 and images == sum(errors.values())
