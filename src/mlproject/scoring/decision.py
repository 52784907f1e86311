"""What scoring does with a micro-batch that failed: a pure function of what was observed."""

from dataclasses import dataclass
from enum import Enum
from typing import Literal

Fault = Literal["raised", "crashed", "hung"]

TRIES = 2  # of a micro-batch whose worker died: once may be the machine's fault
SUSPECTS = 3  # images of one scoring that may crash workers before it is the version's fault


class Step(Enum):
    """What happens next to a micro-batch that failed."""

    RETRY = "score it once more"
    GUARD = "score it through the guarded model, which keeps an exception to its image"
    SPLIT = "score its halves, after the other micro-batches"
    POSTPONE = "score the other micro-batches first"
    QUARANTINE = "give its image the error `model_failed`"
    REFUSE = "end the scoring: the version is at fault"
    STOP = "end the scoring: its images stay pending"


@dataclass(frozen=True, slots=True)
class Failure:
    """What was observed of a micro-batch that failed, and of the scoring that it belongs to."""

    fault: Fault
    """`raised`: the version's code raised; `crashed`: a worker process died; `hung`: no task ended
    in the task timeout."""
    crashes: int
    """How often it has crashed or hung."""
    images: int
    """Images in it."""
    guarded: bool
    """Whether it was scored through the guarded model."""
    may_quarantine: bool
    """Whether single images may be blamed for crashes: so for a version that serves."""
    suspects: int
    """Other parts of this scoring that have crashed, no two with an image in common: at least so
    many other images crash workers."""
    predicted_others: bool
    """Whether the version has predicted images without an error in this scoring."""
    others_left: bool
    """Whether micro-batches are left that may show that the version predicts others."""
    stopped: bool
    """Whether the scoring is to end."""


def next_step(failure: Failure) -> Step:
    """What happens next; see decision 12, "Exceptions" and "Crashes"."""
    if failure.stopped:  # what stops the command may have stopped its workers too
        return Step.STOP
    if failure.fault == "raised":  # through the guard no image can raise: the version does
        return Step.REFUSE if failure.guarded else Step.GUARD
    if failure.crashes < TRIES:
        return Step.RETRY
    # A hang is not split: each try takes the task timeout.
    is_versions = failure.fault == "hung" or not failure.may_quarantine
    if is_versions or failure.suspects >= SUSPECTS:
        return Step.REFUSE
    if failure.images > 1:
        return Step.SPLIT
    unproven = Step.POSTPONE if failure.others_left else Step.REFUSE
    return Step.QUARANTINE if failure.predicted_others else unproven
