"""What travels inside every model version: decoding, answers, and one network per process.

This folder is logged as an artifact of each version and loaded by the version itself, privately,
under a name that holds the hash of these files. So: functions only, relative imports only, and
nothing but the standard library, numpy and Pillow.
"""

from .answers import COLUMNS, answers, predictions
from .decode import DEFAULTS, Header, decode, decode_all, header, header_of
from .errors import ERRORS
from .process import cached, device_index, file_sha256, loads, task_device_index

__all__ = [
    "COLUMNS",
    "DEFAULTS",
    "ERRORS",
    "Header",
    "answers",
    "cached",
    "decode",
    "decode_all",
    "device_index",
    "file_sha256",
    "header",
    "header_of",
    "loads",
    "predictions",
    "task_device_index",
]
