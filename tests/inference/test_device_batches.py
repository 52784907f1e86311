"""Batches on an accelerator, without one: sizes, overlap, and memory that is not enough."""

import io
import threading

import numpy as np
import pytest
from PIL import Image

from mlproject import inference
from mlproject.inference import pipeline
from mlproject.integrations.outages import fault_of
from tests.support.device_errors import DEVICE_FAULTS, OUT_OF_MEMORY, exception

CONFIG = {**inference.DEFAULTS, "resize": 8, "crop": 8, "batch_size": 2, "top_k": 1}
LABELS = [str(number) for number in range(256)]
GB = 10**9
WAIT_S = 30  # of a test that would else wait for ever


def encoded(level):
    buffer = io.BytesIO()
    Image.new("L", (8, 8), level).save(buffer, "PNG")
    return buffer.getvalue()


def one_hot(images):
    """The level of each image as its most likely class."""
    return np.eye(256)[images[:, 0, 0, 0]]


class Device:
    """A forward that fails above a number of images, with a text of a library."""

    def __init__(self, fits, text=OUT_OF_MEMORY[2]):
        self.fits, self.text, self.tried = fits, text, []

    def forward(self, images):
        self.tried.append(len(images))
        if len(images) > self.fits:
            raise exception(self.text)
        return one_hot(images)


@pytest.mark.parametrize(
    ("side", "memory_bytes", "expected"),
    [
        (224, 0, 256),  # unknown
        (224, 80 * GB, 256),
        (224, 16 * GB, 256),
        (224, 8 * GB, 128),
        (224, 4 * GB, 64),
        (448, 16 * GB, 64),
        (96, 4 * GB, 256),
        (224, GB // 1000, 1),
    ],
)
def test_a_batch_is_chosen_by_the_bytes_of_an_image_and_the_device(side, memory_bytes, expected):
    assert expected == inference.device_batch_size(side, memory_bytes)


@pytest.mark.parametrize("text", OUT_OF_MEMORY)
def test_out_of_memory_halves_the_batch_and_is_remembered_for_the_network_and_device(text):
    device, key, images = Device(3, text), object(), np.arange(16).repeat(192).reshape(16, 8, 8, 3)
    images = images.astype(np.uint8)
    compute = inference.within_memory(device.forward, key, 16)
    np.testing.assert_array_equal(one_hot(images), compute(images))
    assert [16, 8, 4, *[2] * 8] == device.tried
    again = inference.within_memory(device.forward, key, 16)
    np.testing.assert_array_equal(one_hot(images), again(images))
    assert [2] * 8 == device.tried[11:]
    assert (2, 16) == (inference.batch_limit(key, 16), inference.batch_limit(object(), 16))


def test_a_last_part_that_does_not_fit_is_halved_too():
    device, key = Device(1), object()
    images = np.zeros((3, 8, 8, 3), np.uint8)
    assert (3, 256) == inference.within_memory(device.forward, key, 8)(images).shape
    assert [3, 1, 1, 1] == device.tried


@pytest.mark.parametrize("text", OUT_OF_MEMORY)
def test_one_image_that_does_not_fit_is_a_fault_of_the_machine(text):
    device = Device(0, text)
    with pytest.raises((RuntimeError, MemoryError)) as raised:
        inference.within_memory(device.forward, object(), 4)(np.zeros((4, 8, 8, 3), np.uint8))
    assert ([4, 2, 1], text.partition(": ")[2]) == (device.tried, str(raised.value))
    assert "device" == fault_of(text)


@pytest.mark.parametrize("text", DEVICE_FAULTS)
def test_a_fault_of_a_device_is_raised_at_once_and_is_the_machines(text):
    device, contents = Device(0, text), [encoded(1), encoded(2), b"", encoded(3)]
    compute = inference.within_memory(device.forward, object(), 4)
    with pytest.raises(RuntimeError) as raised:
        inference.predictions(contents, compute, LABELS, CONFIG, threads=2, device_batch=2)
    assert ([2], text.partition(": ")[2]) == (device.tried, str(raised.value))
    assert "device" == fault_of(text)


@pytest.mark.parametrize("text", ["ValueError: no photos", "RuntimeError: shapes differ"])
def test_other_errors_are_not_tried_with_fewer_images(text):
    device = Device(0, text)
    with pytest.raises(RuntimeError):
        inference.within_memory(device.forward, object(), 4)(np.zeros((4, 8, 8, 3), np.uint8))
    assert [4] == device.tried


def test_tensors_of_a_batch_that_did_not_fit_are_freed_before_fewer_are_tried():
    alive = []

    class Tensor:
        def __init__(self):
            alive.append(1)

        def __del__(self):
            alive.pop()

    def forward(images):
        _tensor = Tensor()
        if len(images) > 1:
            raise exception(OUT_OF_MEMORY[2])
        assert [1] == alive
        return one_hot(images)

    inference.within_memory(forward, object(), 4)(np.zeros((4, 8, 8, 3), np.uint8))


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100])
def test_rows_and_errors_keep_their_order_in_any_batch_and_with_halves(size):
    levels = [10, None, 20, 30, None, None, None, 40, 50, 60, 70]
    contents = [encoded(level) if level else b"no image" for level in levels]
    expected = [str(level) if level else "" for level in levels]
    compute = inference.within_memory(Device(2).forward, object(), size)
    found = inference.predictions(contents, compute, LABELS, CONFIG, threads=3, device_batch=size)
    assert expected == found["label"]
    assert ["" if level else "unsupported_format" for level in levels] == found["error"]


def test_a_batch_is_decoded_while_the_one_before_is_computed(monkeypatch):
    begun = {number: threading.Event() for number in range(4)}
    decode_all = pipeline.decode_all

    def recorded(contents, config, *, threads):
        begun[contents[0][-1]].set()
        return decode_all(contents, config, threads=threads)

    monkeypatch.setattr(pipeline, "decode_all", recorded)
    computed = []

    def forward(images):
        number = len(computed)
        if number < 3:
            assert begun[number + 1].wait(WAIT_S)
        # One batch in the background at most: the one after the next has not begun.
        assert not any(begun[later].is_set() for later in range(number + 2, 4))
        computed.append(number)
        return one_hot(images)

    contents = [encoded(1) + bytes([number]) for number in range(4)]
    inference.predictions(contents, forward, LABELS, CONFIG, device_batch=1)
    assert [0, 1, 2, 3] == computed


def test_on_a_cpu_nothing_is_decoded_in_the_background(monkeypatch):
    calls = set()
    decode_all = pipeline.decode_all

    def recorded(contents, config, *, threads):
        calls.add((threading.get_ident(), len(contents), threads))
        return decode_all(contents, config, threads=threads)

    monkeypatch.setattr(pipeline, "decode_all", recorded)
    inference.predictions([encoded(1)] * 4, one_hot, LABELS, CONFIG)
    assert {(threading.get_ident(), 2, 1)} == calls


def test_an_error_ends_the_background_decoding():
    def forward(images):
        raise ValueError("no")

    before = threading.active_count()
    with pytest.raises(ValueError, match="no") as raised:  # its traceback holds what is left open
        inference.predictions([encoded(1)] * 9, forward, LABELS, CONFIG, device_batch=3)
    assert (before, "no") == (threading.active_count(), str(raised.value))
