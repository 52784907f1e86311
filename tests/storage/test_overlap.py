"""Several files are read at once, and their results come in order."""

import threading
import time

import pytest

from mlproject.storage import overlap
from mlproject.storage.overlap import overlapped


def test_results_come_in_order_though_they_are_ready_in_another():
    def slow_first(number):
        time.sleep(0.2 if number == 0 else 0)
        return number

    assert list(range(20)) == list(overlapped(slow_first, range(20), lambda _: 1, at_once=8))


def test_as_many_run_at_once_as_are_asked_for():
    together = threading.Barrier(4, timeout=30)
    found = overlapped(lambda number: together.wait() >= 0, range(8), lambda _: 1, at_once=4)
    assert [True] * 8 == list(found)


def test_the_bytes_that_are_held_are_bounded_and_one_item_may_exceed_them(monkeypatch):
    monkeypatch.setattr(overlap, "WINDOW_BYTES", 10)
    held, most, lock = 0, 0, threading.Lock()

    def read(size):
        nonlocal held, most
        with lock:
            held += size
            most = max(most, held)
        return size

    sizes = [3, 3, 3, 3, 25, 3, 3, 3]
    for size in overlapped(read, sizes, lambda size: size, at_once=8):
        with lock:
            held -= size
    assert most in (25, 28)  # the next one may begin while a result is taken


def test_an_error_is_raised_in_its_place_and_the_rest_is_not_begun():
    begun = []

    def fail_at_three(number):
        begun.append(number)
        if number == 3:
            raise OSError("broken")
        return number

    found = overlapped(fail_at_three, range(1000), lambda _: 1, at_once=2)
    assert [0, 1, 2] == [next(found) for _ in range(3)]
    with pytest.raises(OSError, match="broken"):
        next(found)
    assert len(begun) < 10
