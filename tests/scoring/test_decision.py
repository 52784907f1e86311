"""The rules for a micro-batch that failed, one row each."""

from dataclasses import replace

import pyarrow as pa
import pytest

from mlproject.scoring.decision import Failure, Step, fault_of, is_wrong_everywhere, next_step
from mlproject.scoring.micro_batches import Attempt, MicroBatch
from mlproject.scoring.workers import WorkerError

RAISED = Failure("raised", 0, 1000, False, False, 0, False, True, False)
CRASHED = Failure("crashed", 2, 1000, False, True, 0, False, True, False)
ONE_IMAGE = replace(CRASHED, images=1)
DEVICE = replace(CRASHED, fault="device", guarded=True, may_quarantine=False)

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
        {"fault": "machine", "predicted_others": True},
        Step.FAIL,
    ),
    "a first fault of memory or a device is tried again, image by image": (
        DEVICE,
        {"crashes": 1, "guarded": False},
        Step.GUARD,
    ),
    "or as before, when it is scored so already": (DEVICE, {"crashes": 1}, Step.RETRY),
    "a second one is searched for its image, also of a version that does not serve": (
        DEVICE,
        {},
        Step.SPLIT,
    ),
    "one that follows one image alone is that image's": (
        DEVICE,
        {"images": 1, "predicted_others": True},
        Step.QUARANTINE,
    ),
    "unless no other image was predicted: then it is the machine's": (
        DEVICE,
        {"images": 1, "others_left": False},
        Step.FAIL,
    ),
    "which waits until others are scored": (DEVICE, {"images": 1}, Step.POSTPONE),
    "so is one that follows many images": (
        DEVICE,
        {"suspects": 3, "predicted_others": True},
        Step.FAIL,
    ),
    "a command that is to end blames no machine": (DEVICE, {"stopped": True}, Step.STOP),
}

# The last lines of tracebacks, as the libraries write them.
EXCEPTIONS = {
    "device": [
        "MemoryError",
        "numpy._core._exceptions._ArrayMemoryError: Unable to allocate 7.45 GiB for an array",
        "pyarrow.lib.ArrowMemoryError: malloc of size 64 failed",
        "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB",
        "RuntimeError: CUDA out of memory. Tried to allocate 2.00 GiB",
        "RuntimeError: CUDA error: device-side assert triggered",
        "torch.AcceleratorError: CUDA error: an illegal memory access was encountered",
        "RuntimeError: cuDNN error: CUDNN_STATUS_EXECUTION_FAILED",
        "RuntimeError: [enforce fail at alloc_cpu.cpp:114] data. DefaultCPUAllocator: can't "
        "allocate memory: you tried to allocate 40 bytes",
        "onnxruntime.capi.onnxruntime_pybind11_state.RuntimeException: [ONNXRuntimeError] : 6 : "
        "RUNTIME_EXCEPTION : bfc_arena.cc:376 Failed to allocate memory for requested buffer",
        "onnxruntime.capi.onnxruntime_pybind11_state.Fail: [ONNXRuntimeError] : 1 : FAIL : CUDA "
        "failure 2: out of memory",
        "onnxruntime.capi.onnxruntime_pybind11_state.RuntimeException: std::bad_alloc",
        "tensorflow.python.framework.errors_impl.ResourceExhaustedError: OOM when allocating",
        "OSError: [Errno 12] Cannot allocate memory",
        "RuntimeError: Vulkan device was lost",
    ],
    "machine": [
        "OSError: [Errno 5] Input/output error",
        "OSError: [Errno 28] No space left on device: '/tmp/x'",
        "OSError: [Errno 116] Stale file handle",
        "PermissionError: [Errno 13] Permission denied: '/models/x'",
        "ConnectionResetError: [Errno 104] Connection reset by peer",
        "ConnectionError",
        "BrokenPipeError: broken",
        "TimeoutError: timed out",
        "TimeoutError",
        "requests.exceptions.ConnectionError: HTTPConnectionPool(host='x', port=80)",
        "requests.exceptions.ReadTimeout: HTTPConnectionPool(host='x', port=80)",
        "requests.exceptions.ConnectTimeout: x",
        "urllib3.exceptions.ReadTimeoutError: x",
        "botocore.exceptions.EndpointConnectionError: Could not connect",
        "socket.gaierror: [Errno -3] Temporary failure in name resolution",
        "OSError: When reading information for key 'x': AWS Error NETWORK_CONNECTION",
    ],
    "raised": [
        "ValueError: no photos, please",
        "FileNotFoundError: [Errno 2] No such file or directory: '/photos/1.jpg'",
        "NotADirectoryError: [Errno 20] Not a directory: '/photos/1.jpg'",
        "OSError: image file is truncated (3 bytes not processed)",
        "PIL.UnidentifiedImageError: cannot identify image file <_io.BytesIO object>",
        "KeyError: 'timeout'",
        "RuntimeError: mat1 and mat2 shapes cannot be multiplied",
        "TypeError: memory must be a number",
        "AttributeError: 'Model' object has no attribute 'device'",
    ],
}
TRACEBACK = """org.apache.spark.api.python.PythonException: Traceback (most recent call last):
  File "/models/model.py", line 12, in predict
    raise MemoryError from ConnectionError  # CUDA error
{}

\tat org.apache.spark.api.python.BasePythonRunner$ReaderIterator.handlePythonException
"""


@pytest.mark.parametrize("rule", RULES)
def test_a_micro_batch_that_failed(rule):
    failure, facts, expected = RULES[rule]
    assert expected == next_step(replace(failure, **facts))


@pytest.mark.parametrize(
    ("fault", "line"), [(fault, line) for fault, lines in EXCEPTIONS.items() for line in lines]
)
def test_whose_fault_an_exception_is(fault, line):
    assert fault == fault_of(TRACEBACK.format(line))


def test_an_exception_with_a_cause_is_of_that_cause():
    line = "MemoryError\n\nThe above exception was the direct cause of the following exception:\n"
    assert "device" == fault_of(TRACEBACK.format(f"{line}\nTraceback ...\nValueError: no photo"))


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
        may_quarantine=False,
        suspects=0,
        predicted_others=False,
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
