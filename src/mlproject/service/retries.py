"""What has failed: when it is tried again, and how it is reported once."""

import time
from collections.abc import Callable, Hashable

from mlproject.masking import mask

LONGEST_S = 600  # between two tries, however many have failed


def delay_s(failures: int, interval: float) -> float:
    """Seconds until the next try after so many failures in a row: the interval, doubled by each."""
    return float(min(interval * 2 ** min(failures, 30), max(LONGEST_S, interval)))


class Retries:
    """What has failed, how often in a row, and when it may be tried again."""

    def __init__(self, interval: float) -> None:
        self._interval = interval
        self._failed: dict[Hashable, tuple[int, float]] = {}

    def __contains__(self, key: Hashable) -> bool:
        """Whether its last try failed."""
        return key in self._failed

    def is_due(self, key: Hashable) -> bool:
        """Whether it may be tried now."""
        return time.monotonic() >= self._failed.get(key, (0, 0.0))[1]

    def failed(self, key: Hashable) -> None:
        """Notes that a try failed."""
        count = self._failed.get(key, (0, 0.0))[0] + 1
        self._failed[key] = (count, time.monotonic() + delay_s(count, self._interval))

    def succeeded(self, key: Hashable) -> None:
        """Notes that a try succeeded, or is no longer needed."""
        self._failed.pop(key, None)

    def clear(self) -> None:
        """Everything may be tried now."""
        self._failed.clear()


class Troubles:
    """Reports each trouble of a subject once, and its end."""

    def __init__(self, on_fault: Callable[[str], None], on_message: Callable[[str], None]) -> None:
        self._on_fault, self._on_message = on_fault, on_message
        self._reported: dict[str, str] = {}

    def now(self) -> dict[str, str]:
        """What does not work now, by subject."""
        return {subject: trouble for subject, trouble in self._reported.copy().items() if trouble}

    def report(self, subject: str, trouble: str) -> None:
        """Reports a trouble unless it was reported last; empty = the subject works."""
        reported, trouble = self._reported.get(subject, ""), mask(trouble)
        if trouble and trouble != reported:
            self._on_fault(f"{subject}: {trouble}")
        if reported and not trouble:
            self._on_message(f"{subject}: works again")
        self._reported[subject] = trouble
