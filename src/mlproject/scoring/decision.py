"""What scoring does with a micro-batch that failed, and whose fault it is: pure functions."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Literal

from mlproject.inference.errors import BAD_ANSWER, MODEL_FAILED, NOT_FINITE

Fault = Literal["raised", "crashed", "hung", "device", "machine"]

TRIES = 2  # of a micro-batch, unless the version's code raised: once may be the machine's fault
SUSPECTS = 3  # images of one scoring that may crash workers before it is the version's fault
OF_THE_MACHINE = ("machine", "device")  # of several faults of a micro-batch the first here counts
OF_THE_VERSION = (MODEL_FAILED, BAD_ANSWER, NOT_FINITE)  # errors that no fault of an image explains

# Which errors in a worker are faults of the machine. They reach the driver as the text of the
# worker's traceback, and the guard, which imports nothing of ours, has the text too: one list.
# Memory and accelerators: their faults may follow one image. Sources: the exceptions of Python,
# numpy, pyarrow and torch; TensorFlow's errors; the texts of torch, ONNX Runtime, TensorFlow, CUDA
# and C++.
DEVICE = (
    r"^(?:\w+\.)*(?:\w*MemoryError|ResourceExhaustedError|AcceleratorError)\b",
    r"^\S.*(?:[Oo]ut of memory|allocate memory|OOM when allocating|bad_alloc)",
    r"^\S.*(?:CUDA (?:\w+ ){0,2}(?:error|fail)|CUDA_ERROR_|cudaError|[Nn]o CUDA.{0,9}(?:GPU|device)"
    r"|CU(?:DNN|BLAS)_STATUS_|(?i:cudnn|cublas) (?:error|failure)|DNN library)",
    r"^\S.*(?:HIP error|[Dd]evice.{0,20}lost|GPU is lost)",
)
# File systems and networks: an error of the operating system has a number, Pillow's have none.
# A removed file (2, 20) is no fault of the machine.
MACHINE = (
    r"^(?:\w+\.)*\w*(?:Connection|Connect|Timeout)(?:Error|Exception)?(?::|$)",
    r"^(?:\w+\.)*(?:ConnectionResetError|ConnectionRefusedError|ConnectionAbortedError"
    r"|BrokenPipeError|RemoteDisconnected)\b",
    r"^\S.*\[Errno (?!(?:2|20)\])-?\d+\]",
    r"^\S.*(?:AWS Error|Max retries exceeded)",
)
MACHINE_FAULTS = "|".join((*DEVICE, *MACHINE))


class Step(Enum):
    """What happens next to a micro-batch that failed."""

    RETRY = "score it once more"
    GUARD = "score it through the guarded model, which keeps an exception to its image"
    SPLIT = "score its halves, after the other micro-batches"
    POSTPONE = "score the other micro-batches first"
    QUARANTINE = "give its image the error `model_failed`"
    REFUSE = "end the scoring: the version is at fault"
    FAIL = "end the scoring: the machine is at fault, and its images stay pending"
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
    """What happens next; see decision 12, "Exceptions", and decision 18."""
    if failure.stopped:  # what stops the command may have stopped its workers too
        return Step.STOP
    if failure.fault == "raised":  # through the guard no image can raise: the version does
        return Step.REFUSE if failure.guarded else Step.GUARD
    if failure.crashes >= TRIES:
        return _after_all_tries(failure)
    # Image by image a version needs less memory.
    return Step.GUARD if failure.fault == "device" and not failure.guarded else Step.RETRY


def _after_all_tries(failure: Failure) -> Step:
    """Looks for an image that the fault follows, where that may be; else ends the scoring."""
    fault = failure.fault
    end = Step.FAIL if fault in OF_THE_MACHINE else Step.REFUSE
    # A hang is not split: each try takes the task timeout.
    may_follow_image = fault == "device" or (fault == "crashed" and failure.may_quarantine)
    if not may_follow_image or failure.suspects >= SUSPECTS:
        return end
    if failure.images > 1:
        return Step.SPLIT
    if failure.predicted_others:
        return Step.QUARANTINE
    return Step.POSTPONE if failure.others_left else end


def fault_of(traceback: str) -> Fault:
    """Whose fault an exception in a worker is, from the text of its traceback, causes included."""
    if re.search("|".join(DEVICE), traceback, re.MULTILINE):
        return "device"
    return "machine" if re.search("|".join(MACHINE), traceback, re.MULTILINE) else "raised"


def is_wrong_everywhere(images: int, errors: Mapping[str, int]) -> bool:
    """Whether a version has predicted nothing, and failed on each image that has no fault itself.

    Args:
        images: Images of a micro-batch.
        errors: Images among them by their error code.
    """
    failed = sum(errors.get(code, 0) for code in OF_THE_VERSION)
    return failed > 0 and images == sum(errors.values())
