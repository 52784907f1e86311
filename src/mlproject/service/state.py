"""What a watch knows of itself, and where it reports that: its status file, and systemd."""

import contextlib
import os
import socket
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from mlproject.rollout.planning import AliasPlan
from mlproject.service.health import (
    Phase,
    Reconciled,
    WatchStatus,
    read_status,
    write_status,
)
from mlproject.service.processes import has_ended, this_process
from mlproject.service.retries import Troubles

WRITE_S = 5  # between two writes of a status that says nothing new
WAITING_S = 60  # patience with a watch that waits: it writes every WRITE_S
# Patience with a reconciliation, beside the task timeout: to list a source, to plan, to start Spark
# and load a version. While tasks run, the end of each is progress.
STEP_S = 300
SYSTEMD = "NOTIFY_SOCKET"  # where systemd waits for news. Source: sd_notify(3)


@dataclass(slots=True)
class WatchState:
    """What changes from one reconciliation to the next."""

    count: int = 0
    """Reconciliations that ended."""
    failures: int = 0
    """How many of the last ones have failed, one after the other."""
    succeeded_at: datetime | None = None
    """When the last one succeeded; None = none has."""
    aliases: int = 0
    """Aliases and stages of the last plan."""
    backlog: int = 0
    """Images without a prediction, as of the last plan."""
    behind: dict[str, float] = field(default_factory=dict)
    """Since when each alias names another version than its serving version, `time.monotonic`."""
    waits_for: dict[str, str] = field(default_factory=dict)
    """What another watch works on, with that watch."""
    logged: tuple[int, ...] = ()
    """The counts of the last health report."""
    logged_s: float = 0.0
    """When it was made, in seconds of `time.monotonic`."""

    def planned(self, plans: Sequence[AliasPlan]) -> None:
        """Notes what is left to do."""
        self.aliases = len(plans)
        self.backlog = sum(one.coverage.missing for plan in plans for one in plan.work)

    def lag_s(self) -> float:
        """Seconds since the first of the aliases that are behind was seen to be; 0 = none is."""
        now = time.monotonic()
        return max((now - since for since in list(self.behind.values())), default=0.0)

    def reconciled(self) -> Reconciled:
        """What the reconciliations have found so far."""
        at = self.succeeded_at.isoformat(timespec="seconds") if self.succeeded_at else ""
        return Reconciled(
            self.count,
            self.failures,
            at,
            self.aliases,
            len(self.behind),
            round(self.lag_s(), 1),
            self.backlog,
        )


class StatusReport:
    """Reports that a watch makes progress, and what it found, to its status file and to systemd.

    A status that cannot be written is written later. Where another watch that runs has the file,
    it is left alone. It is removed when the watch is stopped.
    """

    def __init__(
        self,
        file: Path,
        lake: str,
        state: WatchState,
        troubles: Troubles,
        *,
        task_timeout: float,
    ) -> None:
        self.file, self.progress_s = file, time.monotonic()
        self._lake, self._state, self._troubles = lake, state, troubles
        self._patience_s = task_timeout + STEP_S
        self._started_at = datetime.now(UTC).isoformat(timespec="seconds")
        self._phase: Phase = "starting"
        self._lock, self._written_s = threading.Lock(), -float("inf")

    @property
    def patience_s(self) -> float:
        """Seconds within which the next progress is due."""
        return WAITING_S if self._phase == "waiting" else self._patience_s

    def is_late(self) -> bool:
        """Whether the next progress is overdue: the watch hangs."""
        return time.monotonic() - self.progress_s > self.patience_s

    def progress(self) -> None:
        """Notes progress; may be called often, from any thread."""
        self.progress_s = time.monotonic()
        if self.progress_s - self._written_s >= WRITE_S:
            self._write()

    def enter(self, phase: Phase) -> None:
        """Notes progress, and what is done next."""
        self._phase, self.progress_s = phase, time.monotonic()
        self._write()

    def _write(self) -> None:
        with self._lock:
            status = WatchStatus(
                this_process(),
                self._lake,
                self._started_at,
                self._phase,
                self.progress_s,
                self.patience_s,
                self._state.reconciled(),
                self._troubles.now(),
                dict(self._state.waits_for),
            )
            _tell_systemd(status)
            other = other_watch(self.file)
            if other:
                self._troubles.report(str(self.file), f"{other}. Name another: -P status=FILE")
            else:
                with contextlib.suppress(OSError):  # a full disk is reported where it does harm
                    if self._phase == "stopped":
                        self.file.unlink(missing_ok=True)
                    else:
                        write_status(self.file, status)
                self._troubles.report(str(self.file), "")
            self._written_s = time.monotonic()


def other_watch(file: Path) -> str:
    """Which other watch that runs writes a status file, in a line; empty = none."""
    found, own = read_status(file), this_process()
    if found is None or found.process == own:
        return ""
    is_old = not 0 <= time.monotonic() - found.progress_s <= found.patience_s
    if is_old or has_ended(found.process):
        return ""
    return f"another watch (process {found.process.pid}) writes its status there"


def _tell_systemd(status: WatchStatus) -> None:
    """Reports progress to systemd, if it has started the watch and waits for that."""
    address = os.environ.get(SYSTEMD)
    if not address:
        return
    found = status.reconciled
    lines = ["WATCHDOG=1", f"STATUS={status.phase}, backlog {found.backlog} images"]
    if status.phase != "starting":
        lines.append("STOPPING=1" if status.phase == "stopped" else "READY=1")
    if address.startswith("@"):  # Linux's abstract namespace
        address = f"\0{address[1:]}"
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.sendto("\n".join(lines).encode(), address)
