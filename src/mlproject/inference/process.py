"""The loaded networks of a worker process."""

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

Loaded = TypeVar("Loaded")

# Networks in memory: a reused Python worker gets different devices from task to task, and a driver
# may use two versions.
_MAX_NETWORKS = 2

_lock = threading.Lock()
_networks: OrderedDict[Hashable, Any] = OrderedDict()
_loads: list[Hashable] = []


def cached(key: Hashable, load: Callable[[], Loaded]) -> Loaded:
    """The result of `load` for this key in this process, loaded once while it is in use.

    Two results are kept, the most recently used. Threads with the same key wait for one load. A
    load that raises leaves nothing in the cache. The key of a network is hashes of its weights and
    config, and the device.
    """
    with _lock:
        if key not in _networks:
            _networks[key] = load()
            _loads.append(key)
        _networks.move_to_end(key)
        while len(_networks) > _MAX_NETWORKS:
            _networks.popitem(last=False)
        network: Loaded = _networks[key]
        return network


def loads() -> tuple[Hashable, ...]:
    """The keys of all loads in this process so far, in order, with repetitions."""
    with _lock:
        return tuple(_loads)


def file_sha256(path: str | Path) -> str:
    """Hex sha256 of a file's bytes; 14 MB take about 10 ms, and none while the file is the same."""
    facts = Path(path).stat()
    return _sha256(str(path), facts.st_ino, facts.st_size, facts.st_mtime_ns)


@lru_cache(8)
def _sha256(path: str, inode: int, size: int, modified_ns: int) -> str:
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
