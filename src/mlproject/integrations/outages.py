"""Faults of Spark and other outside systems: whose they are, and their messages in one line.

Faults of the machine are known by the text of a traceback, causes included: it is what reaches the
driver from workers, and the guard, which imports nothing of ours, gets the same patterns.
"""

import re
import traceback
from typing import Literal

from py4j.protocol import Py4JError, Py4JJavaError, Py4JNetworkError

from mlproject.errors import MachineError, first_line
from mlproject.integrations import spark_log
from mlproject.masking import mask

# Memory and accelerators: their faults may follow one image. Sources: the exceptions of Python,
# numpy, pyarrow and torch; TensorFlow's errors; the texts of torch, ONNX Runtime, TensorFlow, CUDA
# and C++.
_DEVICE = (
    r"^(?:\w+\.)*(?:\w*MemoryError|ResourceExhaustedError|AcceleratorError)\b",
    r"^\S.*(?:[Oo]ut of memory|allocate memory|OOM when allocating|bad_alloc)",
    r"^\S.*(?:CUDA (?:\w+ ){0,2}(?:error|fail)|CUDA_ERROR_|cudaError|[Nn]o CUDA.{0,9}(?:GPU|device)"
    r"|CU(?:DNN|BLAS)_STATUS_|(?i:cudnn|cublas) (?:error|failure)|DNN library)",
    r"^\S.*(?:HIP error|[Dd]evice.{0,20}lost|GPU is lost)",
)
# File systems and networks: an error of the operating system has a number, Pillow's have none.
# A removed file (2, 20) is no fault of the machine.
_FILES = (
    r"^(?:\w+\.)*\w*(?:Connection|Connect|Timeout)(?:Error|Exception)?(?::|$)",
    r"^(?:\w+\.)*(?:ConnectionResetError|ConnectionRefusedError|ConnectionAbortedError"
    r"|BrokenPipeError|RemoteDisconnected)\b",
    r"^\S.*\[Errno (?!(?:2|20)\])-?\d+\]",
    r"^\S.*(?:AWS Error|Max retries exceeded)",
    r"^\S.*Generic \w+ error: .*(?:error sending request|\b5\d\d )",
)
# Of Spark's JVM, outside its workers. Sources: Spark, error condition FAILED_READ_FILE; the JDK's
# classes, as in `Caused by: java.io.IOException: ...`, not as in a line of a stack.
_JVM = (
    r"\[FAILED_READ_FILE[^\n]*"
    r"|(?:^|: )java\.(?:io\.\w*IOException|io\.EOFException|net\.\w+Exception)(?::[^\n]*|$)"
    r"|java\.lang\.OutOfMemoryError[^\n]*"
)
MACHINE_FAULTS = "|".join((*_DEVICE, *_FILES))  # of Python tracebacks, with re.MULTILINE


def fault_of(text: str) -> Literal["device", "machine", "raised"]:
    """Whose fault an exception is, from its traceback: of a device, of the machine, or neither."""
    if re.search("|".join(_DEVICE), text, re.MULTILINE):
        return "device"
    return "machine" if re.search("|".join(_FILES), text, re.MULTILINE) else "raised"


def jvm_fault_of(text: str) -> str:
    """The line of a Java error that is a fault of the machine; empty = there is none."""
    found = re.search(_JVM, text, re.MULTILINE)
    return found[0].strip(" :") if found else ""


def raise_fault_of_machine(error: Exception, effect: str) -> None:
    """Raises a MachineError where an error says nothing about the code that raised it.

    Args:
        error: What was raised, with its causes and notes.
        effect: What did not happen, in a sentence without its full stop.
    """
    lines = "".join(traceback.format_exception(error)).splitlines()
    fault = next((line for line in lines if fault_of(line) != "raised"), None)
    if fault is not None:
        raise MachineError(f"{effect}, as the machine failed: {fault}. Run it again") from error


def error_message(error: Exception) -> str:
    """The message of an error in one line, which is never empty and contains no secret."""
    return mask(spark_error(error) or first_line(error))


def spark_ended(error: Exception) -> bool:
    """Whether an error says that Spark's JVM ended, or is about to end."""
    text = _text(error)
    if isinstance(error, Py4JJavaError) and text:
        return "SparkContext was shut down" in text or "stopped SparkContext" in text
    no_answer = text.startswith("An error occurred while calling") and "Trace:" not in text
    cut_off = isinstance(error, Py4JError) and (no_answer or not text)
    return cut_off or isinstance(error, ConnectionRefusedError | Py4JNetworkError)


def spark_error(error: Exception) -> str | None:
    """The root cause in an error of Spark, such as a full disk; None for another error."""
    if spark_ended(error):
        jvm = "its JVM ended, as one does that is stopped or out of memory (spark.driver.memory)"
        return spark_log.reason() or jvm
    if type(error).__module__.split(".")[0] not in ("py4j", "pyspark"):
        return None
    lines = [line.strip() for line in _text(error).splitlines() if line.strip()] or [""]
    causes = [line.removeprefix("Caused by: ") for line in lines if line.startswith("Caused by: ")]
    if "Python worker" in lines[0]:  # a traceback, whose last line is the error
        return lines[-1]
    if lines[0].startswith("An error occurred while calling"):  # Java's message follows
        lines = [line.removeprefix(": ") for line in lines[1:]] or lines
    return causes[-1] if causes else lines[0]


def _text(error: Exception) -> str:
    try:
        return str(error)
    except (Py4JError, OSError):  # an error of Java asks the JVM for its message
        return ""
