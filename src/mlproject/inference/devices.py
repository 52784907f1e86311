"""The device and the cores of a task: Spark assigns both to each task."""

import ctypes
import os
import sys
from collections.abc import Sequence
from typing import Any

_CORES_OUTSIDE_SPARK = 8  # a server of predictions shares its machine


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
    task = _task()
    if task is None:
        return device_index([], count, None)
    assigned = task.resources().get("gpu")
    return device_index(assigned.addresses if assigned else [], count, task.partitionId())


def task_cores() -> int:
    """The cores of the Spark task of this thread; outside of a task those of the machine, up to 8.

    Spark's `spark.task.cpus`, 1 unless it is set.
    """
    task = _task()
    if task is None:
        return min(_CORES_OUTSIDE_SPARK, os.cpu_count() or 1)
    return max(1, int(task.cpus()))


def cuda_devices() -> int:
    """The number of accelerators that CUDA's driver permits to this process; 0 without a driver."""
    # Source: CUDA driver API. It counts the devices of CUDA_VISIBLE_DEVICES, and makes no context.
    driver, count = _driver(), ctypes.c_int()
    if driver is None or driver.cuDeviceGetCount(ctypes.byref(count)):
        return 0
    return count.value


def cuda_memory_bytes(index: int) -> int:
    """The memory of an accelerator, or of its MIG slice, used or not; 0 = unknown."""
    driver, device, size = _driver(), ctypes.c_int(), ctypes.c_size_t()
    if driver is None or driver.cuDeviceGet(ctypes.byref(device), index):
        return 0
    # Source: cuda.h, which maps cuDeviceTotalMem to this name
    failed = driver.cuDeviceTotalMem_v2(ctypes.byref(size), device)
    return 0 if failed else size.value


def _driver() -> Any:
    """The library of CUDA's driver; None without a driver or device."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
    return None if driver.cuInit(0) else driver


def _task() -> Any:
    """The Spark task of this thread; None outside of a task."""
    # Not imported: outside Spark a version runs without pyspark.
    pyspark = sys.modules.get("pyspark")
    return pyspark.TaskContext.get() if pyspark is not None else None
