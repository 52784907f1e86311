"""The loaded networks of a worker process, and the device of a task."""

import hashlib
import sys
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
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
    """Hex sha256 of a file's bytes; 14 MB of weights take about 10 ms."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def device_index(addresses: Sequence[str], count: int, partition: int | None) -> int | None:
    """The index of the accelerator to compute on, as the framework counts them; None = CPU.

    Args:
        addresses: The addresses that the cluster assigned to this task ("0", "1", ... or opaque
            names); may be empty.
        count: Accelerators that the framework sees. Where the cluster restricts them by an
            environment variable, they are fewer than on the machine and counted from 0.
        partition: The Spark partition, which distributes tasks without an address; None = no task.
    """
    if count < 1:
        return None
    if addresses and addresses[0].isdecimal():
        return int(addresses[0]) % count
    return (partition or 0) % count


def task_device_index(count: int) -> int | None:
    """`device_index` of the Spark task of this thread, or outside of a task.

    To be called for each batch: a reused Python worker runs tasks with different devices.
    """
    # Not imported: outside Spark a version runs without pyspark.
    pyspark = sys.modules.get("pyspark")
    task = pyspark.TaskContext.get() if pyspark is not None else None
    if task is None:
        return device_index([], count, None)
    assigned = task.resources().get("gpu")
    return device_index(assigned.addresses if assigned else [], count, task.partitionId())
