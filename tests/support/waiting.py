"""Waits for what other processes and threads do."""

import time
from collections.abc import Callable


def wait_until(is_true: Callable[[], object], seconds: float = 120) -> None:
    """Returns once the function gives something true; the test fails when it does not in time."""
    end = time.monotonic() + seconds
    while not is_true():
        assert time.monotonic() < end, f"not in {seconds} s"
        time.sleep(0.2)
