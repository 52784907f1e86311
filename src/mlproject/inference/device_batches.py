"""Batches on an accelerator: how many images, and fewer where its memory is not enough."""

import re
import threading
from collections.abc import Callable, Hashable
from typing import Any

import numpy as np

Forward = Callable[[np.ndarray], np.ndarray]

MAX_IMAGES = 256  # images; two such batches of 224 x 224 pixels take 77 MB of the worker's memory
# Bytes a pixel of the square that an image needs while a network computes. The largest tensors that
# MobileNetV2 needs at once are (H/2, W/2, 16) and (H/2, W/2, 96) in float32, 112 bytes a pixel;
# twice, for the workspace of convolutions. Source: Sandler et al., MobileNetV2, table 2.
_PIXEL_BYTES = 224
_MEMORY_SHARES = 4  # one for a batch: two tasks may share a device, beside weights and workspaces

# Texts of exceptions that fewer images may avoid. Sources: the CUDA allocators of ONNX Runtime,
# torch and TensorFlow; cublas_api.h and cudnn_graph.h; numpy.
_OUT_OF_MEMORY = re.compile(
    r"[Oo]ut of memory|OutOfMemory|MemoryError|OOM when allocating|[Aa]llocate memory|bad_alloc"
    r"|ResourceExhausted|RESOURCE_EXHAUSTED|CU(?:DNN|BLAS)_STATUS_\w*ALLOC"
)

_lock = threading.Lock()
_limits: dict[Hashable, int] = {}  # images that fit, where more did not


def device_batch_size(side: int, memory_bytes: int = 0) -> int:
    """Images that an accelerator computes at once: a power of two, at most `MAX_IMAGES`.

    Args:
        side: Width and height of the network's input, pixels.
        memory_bytes: Memory of the accelerator; 0 = unknown.
    """
    if not memory_bytes:
        return MAX_IMAGES
    fitting = memory_bytes // _MEMORY_SHARES // (side * side * _PIXEL_BYTES)
    return min(MAX_IMAGES, 1 << (max(1, fitting).bit_length() - 1))


def within_memory(forward: Forward, key: Hashable, size: int) -> Forward:
    """As `forward`, for any number of images: in parts that the accelerator's memory can hold.

    When a part does not fit, half its images are tried, down to one, and the process remembers the
    number for this key. Other errors are raised, and so is one image that does not fit: they are
    faults of the machine.

    Args:
        forward: Images (M, ...) -> probabilities (M, K).
        key: The network and its device.
        size: Images of a part, as long as they fit.
    """

    def compute(images: np.ndarray) -> np.ndarray:
        found: list[np.ndarray] = []
        start = 0
        while start < len(images):
            part = images[start : start + batch_limit(key, size)]
            probabilities = _tried(forward, part)
            if probabilities is None:
                # Not in `except`: its traceback holds the tensors of the part in memory.
                _remember(key, len(part) // 2)
            else:
                found.append(probabilities)
                start += len(part)
        return np.concatenate(found)

    return compute


def batch_limit(key: Hashable, size: int) -> int:
    """Images that are computed at once for this key: `size`, or fewer where those did not fit."""
    with _lock:
        return min(size, _limits.get(key, size))


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that memory was not enough, whatever library raised it."""
    kinds = " ".join(kind.__name__ for kind in type(error).__mro__)
    return _OUT_OF_MEMORY.search(f"{kinds}: {error}") is not None


def _tried(forward: Forward, part: np.ndarray) -> Any:
    """The probabilities, or None when several images do not fit into the memory."""
    try:
        return forward(part)
    except Exception as error:
        if len(part) > 1 and is_out_of_memory(error):
            return None
        raise


def _remember(key: Hashable, images: int) -> None:
    with _lock:
        _limits[key] = min(images, _limits.get(key, images))
