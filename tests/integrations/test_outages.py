"""Which exceptions of libraries are faults of the machine, by their tracebacks."""

import pytest

from mlproject.errors import MachineError
from mlproject.integrations.outages import fault_of, raise_fault_of_machine

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
        "OSError: Generic GCS error: Error performing GET https://h/b/k - error sending request",
        "OSError: Generic MicrosoftAzure error: ... status code: 503 Service Unavailable",
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


@pytest.mark.parametrize(
    ("fault", "line"), [(fault, line) for fault, lines in EXCEPTIONS.items() for line in lines]
)
def test_whose_fault_an_exception_is(fault, line):
    assert fault == fault_of(TRACEBACK.format(line))


def test_an_exception_with_a_cause_is_of_that_cause():
    line = "MemoryError\n\nThe above exception was the direct cause of the following exception:\n"
    assert "device" == fault_of(TRACEBACK.format(f"{line}\nTraceback ...\nValueError: no photo"))


def test_a_fault_of_the_machine_is_raised_as_one_that_can_be_tried_again():
    error = MemoryError()
    with pytest.raises(
        MachineError, match=r"^Nothing was done, as the machine failed: MemoryError\."
    ):
        raise_fault_of_machine(error, "Nothing was done")


def test_the_cause_of_an_error_counts():
    error = ValueError("no export")
    error.__cause__ = OSError(28, "No space left on device")
    with pytest.raises(
        MachineError, match=r"failed: OSError: \[Errno 28\] No space left on device\. Run it again$"
    ):
        raise_fault_of_machine(error, "Nothing was done")


def test_a_fault_of_the_code_raises_nothing():
    raise_fault_of_machine(ValueError("no photo"), "Nothing was done")
