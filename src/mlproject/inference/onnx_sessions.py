"""Sessions of ONNX Runtime."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

_CPU = ("CPUExecutionProvider",)
_LINUX_CPUS = Path("/proc/cpuinfo")


def onnx_session(network: str | Path, threads: int, providers: Sequence[Any] = _CPU) -> Any:
    """The network as an `onnxruntime.InferenceSession`, which computes the same on each machine.

    Args:
        network: A file in the format ONNX.
        threads: Of one call on CPUs; 0 = all cores.
        providers: As ONNX Runtime names them, the first one preferred.

    Without VNNI the product of uint8 and int8 saturates, and an int8 network predicts other labels,
    unless ONNX Runtime is asked for exact products. With VNNI they are exact, and asking for them
    takes twice the time. Source: ONNX Runtime, onnxruntime_session_options_config_keys.h, and
    docs/decisions/0019-quantized-versions.md.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3  # errors
    if not _has_vnni(_LINUX_CPUS.read_text() if _LINUX_CPUS.exists() else ""):
        options.add_session_config_entry("session.x64quantprecision", "1")
    # Without fallback: on a fault of the device it would go on with CPUs, and only print that.
    return onnxruntime.InferenceSession(
        network, options, providers=list(providers), enable_fallback=False
    )


def _has_vnni(cpuinfo: str) -> bool:
    """Whether each CPU in a text of Linux' `/proc/cpuinfo` multiplies int8 exactly."""
    flags = [line.split() for line in cpuinfo.splitlines() if line.startswith("flags")]
    return bool(flags) and all({"avx512_vnni", "avx_vnni"} & set(names) for names in flags)
