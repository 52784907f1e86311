"""The device and the cores of a task: no JVM, no framework, no device."""

import ctypes
import os
import sys
from types import SimpleNamespace

import pytest

from mlproject import inference


@pytest.mark.parametrize(
    ("addresses", "count", "partition", "expected"),
    [
        ([], 0, None, None),
        (["1"], 0, 3, None),  # the cluster gives what the framework cannot see
        ([], 4, None, 0),
        ([], 4, 6, 2),
        (["3"], 4, 0, 3),
        (["3", "1"], 4, 0, 3),
        (["3"], 1, 5, 0),  # narrowed to one, which is counted anew from 0
        (["GPU-6a1e"], 2, 5, 1),
    ],
)
def test_a_task_computes_on_its_assigned_device(addresses, count, partition, expected):
    assert inference.device_index(addresses, count, partition) == expected


def test_outside_spark_the_first_device_is_used():
    assert (inference.task_device_index(0), inference.task_device_index(2)) == (None, 0)


def test_outside_spark_some_cores_of_the_machine_decode():
    assert min(8, os.cpu_count()) == inference.task_cores()


def test_a_task_has_the_cores_that_spark_assigned(monkeypatch):
    task = SimpleNamespace(cpus=lambda: 12)
    pyspark = SimpleNamespace(TaskContext=SimpleNamespace(get=lambda: task))
    monkeypatch.setitem(sys.modules, "pyspark", pyspark)
    assert 12 == inference.task_cores()


def test_without_a_driver_there_is_no_device_and_its_memory_is_unknown(monkeypatch):
    def missing(name):
        raise OSError(name)

    monkeypatch.setattr(ctypes, "CDLL", missing)
    assert (0, 0) == (inference.cuda_devices(), inference.cuda_memory_bytes(0))


class Driver:
    """The functions of libcuda.so.1 that are used, as its documentation has them: 0 = success."""

    def __init__(self, memories, broken=False):
        self.memories, self.broken = memories, broken

    def cuInit(self, flags):  # noqa: N802 - CUDA's names
        return 999 if self.broken else 0

    def cuDeviceGetCount(self, count):  # noqa: N802
        count._obj.value = len(self.memories)
        return 0

    def cuDeviceGet(self, device, ordinal):  # noqa: N802
        device._obj.value = 100 + ordinal
        return 0 if ordinal < len(self.memories) else 101

    def cuDeviceTotalMem_v2(self, size, device):  # noqa: N802
        size._obj.value = self.memories[device.value - 100]
        return 0


@pytest.mark.parametrize(
    ("driver", "devices", "memory"),
    [
        (Driver([16 * 10**9, 80 * 10**9]), 2, 80 * 10**9),
        (Driver([16 * 10**9]), 1, 0),  # there is no second one
        (Driver([16 * 10**9, 80 * 10**9], broken=True), 0, 0),
    ],
)
def test_the_driver_counts_devices_and_their_memory(monkeypatch, driver, devices, memory):
    monkeypatch.setattr(ctypes, "CDLL", lambda name: driver)
    assert (devices, memory) == (inference.cuda_devices(), inference.cuda_memory_bytes(1))
