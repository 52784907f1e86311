"""The state of a watch in one line and as metrics, and faults that are reported once."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from mlproject.rollout.planning import AliasPlan


@dataclass(frozen=True, slots=True)
class Health:
    """The state of all aliases after a reconciliation."""

    aliases: int
    """Aliases and stages that are rolled out."""
    behind: int
    """Those that name another version than their serving version."""
    backlog: int
    """Images that are missing."""
    lag_s: float
    """Seconds since the first of those was moved; 0 = none is behind."""

    @property
    def line(self) -> str:
        """The counts as one line."""
        return f"{self.aliases} aliases, {self.behind} behind, backlog {self.backlog} images"


def behind_since(
    before: Mapping[str, float], plans: Sequence[AliasPlan], now: float
) -> dict[str, float]:
    """Since when each alias names another version than its serving version.

    Args:
        before: What this function gave for the reconciliation before.
        plans: The plans now.
        now: The time, on the clock of `before`.
    """
    return {plan.alias: before.get(plan.alias, now) for plan in plans if plan.is_behind}


def health(plans: Sequence[AliasPlan], behind: Mapping[str, float], now: float) -> Health:
    """The state of all aliases, given their plans and what `behind_since` gave."""
    backlog = sum(one.coverage.missing for plan in plans for one in plan.work)
    return Health(
        len(plans), len(behind), backlog, max((now - at for at in behind.values()), default=0)
    )


class Troubles:
    """Reports each trouble of a subject once, and its end."""

    def __init__(self, on_fault: Callable[[str], None], on_message: Callable[[str], None]) -> None:
        self._on_fault, self._on_message = on_fault, on_message
        self._reported: dict[str, str] = {}

    def report(self, subject: str, trouble: str) -> None:
        """Reports a trouble unless it was reported last; empty = the subject works."""
        reported = self._reported.get(subject, "")
        if trouble and trouble != reported:
            self._on_fault(f"{subject}: {trouble}")
        if reported and not trouble:
            self._on_message(f"{subject}: works again")
        self._reported[subject] = trouble
