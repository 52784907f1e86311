"""What a worker process keeps and where it computes: loaded networks, and the device of a task."""

import hashlib
import sys
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from pathlib import Path
from typing import Any, TypeVar

Loaded = TypeVar("Loaded")

# Networks kept at a time: a reused Python worker is given one of several devices from task to
# task, and a driver may hold the versions before and after a switch.
_KEPT = 2

_lock = threading.Lock()
_networks: OrderedDict[Hashable, Any] = OrderedDict()
_loads: list[Hashable] = []


def cached(key: Hashable, load: Callable[[], Loaded]) -> Loaded:
    """What `load` gave for this key in this process; loaded once while the key is in use.

    The least recently used is let go beyond two. Threads that ask for the same key wait for one
    load. A load that raises leaves nothing behind.

    Args:
        key: All that decides the network: hashes of weights and config, and the device.
        load: Makes the network.
    """
    with _lock:
        if key not in _networks:
            _networks[key] = load()
            _loads.append(key)
        _networks.move_to_end(key)
        while len(_networks) > _KEPT:
            _networks.popitem(last=False)
        network: Loaded = _networks[key]
        return network


def loads() -> tuple[Hashable, ...]:
    """The keys of all loads of this process so far, in order: a key twice was loaded twice."""
    with _lock:
        return tuple(_loads)


def file_sha256(path: str | Path) -> str:
    """Hex sha256 of a file's bytes; 14 MB of weights take about 10 ms."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def device_index(addresses: Sequence[str], count: int, partition: int | None) -> int | None:
    """The accelerator to compute on, as the framework counts them, or None for the CPU.

    Args:
        addresses: What the cluster gave this task ("0", "1", ... or opaque names); may be empty.
        count: Accelerators that the framework sees. Fewer than the machine has when the cluster
            narrowed them by an environment variable: they are counted anew from 0 then.
        partition: The Spark partition, which spreads tasks that were given none; None outside.
    """
    if count < 1:
        return None
    if addresses and addresses[0].isdecimal():
        return int(addresses[0]) % count
    return (partition or 0) % count


def task_device_index(count: int) -> int | None:
    """`device_index` of the Spark task that this thread runs, or of no task.

    Asked anew for each batch: a reused Python worker serves tasks of different devices.

    Args:
        count: Accelerators that the framework sees.
    """
    # Looked up, not imported: outside Spark a version runs without pyspark.
    pyspark = sys.modules.get("pyspark")
    task = pyspark.TaskContext.get() if pyspark is not None else None
    if task is None:
        return device_index([], count, None)
    given = task.resources().get("gpu")
    return device_index(given.addresses if given else [], count, task.partitionId())
