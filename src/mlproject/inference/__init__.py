"""The code that travels inside every model version: decoding, predictions, networks, devices.

This folder is logged as an artifact of each version, and the version loads it under a name that
contains the hash of these files. So it has relative imports only, and imports nothing but the
standard library, numpy and Pillow, and ONNX Runtime where a network is loaded.
"""

from .columns import COLUMNS, prediction_columns, predictions
from .decode import DEFAULTS, Header, decode, decode_all, header
from .device_batches import batch_limit, device_batch_size, is_out_of_memory, within_memory
from .devices import cuda_devices, cuda_memory_bytes, device_index, task_cores, task_device_index
from .errors import ERRORS
from .onnx_sessions import onnx_session
from .pipeline import decoded_batches
from .process import cached, file_sha256, loads

__all__ = [
    "COLUMNS",
    "DEFAULTS",
    "ERRORS",
    "Header",
    "batch_limit",
    "cached",
    "cuda_devices",
    "cuda_memory_bytes",
    "decode",
    "decode_all",
    "decoded_batches",
    "device_batch_size",
    "device_index",
    "file_sha256",
    "header",
    "is_out_of_memory",
    "loads",
    "onnx_session",
    "prediction_columns",
    "predictions",
    "task_cores",
    "task_device_index",
    "within_memory",
]
