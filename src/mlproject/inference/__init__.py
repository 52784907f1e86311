"""The code that travels inside every model version: decoding, predictions, cached networks.

This folder is logged as an artifact of each version, and the version loads it under a name that
contains the hash of these files. So it has relative imports only, and imports nothing but the
standard library, numpy and Pillow.
"""

from .columns import COLUMNS, prediction_columns, predictions
from .decode import DEFAULTS, Header, decode, decode_all, header
from .errors import ERRORS
from .process import cached, device_index, file_sha256, loads, task_device_index

__all__ = [
    "COLUMNS",
    "DEFAULTS",
    "ERRORS",
    "Header",
    "cached",
    "decode",
    "decode_all",
    "device_index",
    "file_sha256",
    "header",
    "loads",
    "prediction_columns",
    "predictions",
    "task_device_index",
]
