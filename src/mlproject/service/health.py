"""The health of a watch: what it writes to its status file, and what another process reads there.

A file and no port: the last status can be read though the watch is busy, hangs or has died. Imports
no MLflow and no Spark, as a probe runs it every few seconds.
"""

import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from mlproject.lake import location
from mlproject.service.processes import Process, has_ended
from mlproject.storage.local_files import cache_folder, write_whole

Phase = Literal["starting", "reconciling", "waiting", "stopped"]


@dataclass(frozen=True, slots=True)
class Reconciled:
    """What the reconciliations of a watch have found so far."""

    reconciliations: int
    """How many have ended."""
    failures: int
    """How many of the last ones have failed, one after the other."""
    succeeded_at: str
    """When the last one succeeded, ISO 8601 in UTC; empty = none has."""
    aliases: int
    """Aliases and stages that are watched."""
    behind: int
    """Those among them that name another version than their serving version."""
    lag_s: float
    """Seconds since the first of these was seen."""
    backlog: int
    """Images without a prediction of the version behind an alias or stage."""


@dataclass(frozen=True, slots=True)
class WatchStatus:
    """What a watch reports of itself."""

    process: Process
    """Its process."""
    lake: str
    """Folder or URI of its lake."""
    started_at: str
    """When it started, ISO 8601 in UTC."""
    phase: Phase
    """`starting`, `reconciling`, `waiting` for the next reconciliation, or `stopped`."""
    progress_s: float
    """When it made progress last: seconds of the machine's monotonic clock."""
    patience_s: float
    """Seconds within which it makes progress again, unless it hangs."""
    reconciled: Reconciled
    """What its reconciliations have found."""
    faults: dict[str, str]
    """What does not work now, by alias, stage or source."""
    waits_for: dict[str, str]
    """What is left to another watch that works on it, by alias, stage or source."""


@dataclass(frozen=True, slots=True)
class Health:
    """Whether a watch lives and works, as its status file says."""

    alive: bool
    """Whether it runs and makes progress; false = start it again."""
    ready: bool
    """Whether it is alive and its last reconciliation succeeded."""
    reason: str
    """Why it is not alive or not ready; empty = it is both."""
    age_s: float | None
    """Seconds since it made progress last; None = there is no status."""
    status: WatchStatus | None
    """What it reported last; None = nothing."""


def health(*, lake: str = "lake", status: str = "") -> Health:
    """The health of the watch of a lake on this machine, or in this container.

    Args:
        lake: Folder or URI of the tables, as the watch got it.
        status: File that the watch writes its status to, if it got this option.

    Raises:
        UserError: The lake has settings behind a "?".
    """
    file = status_file(lake, status)
    found = read_status(file)
    if found is None:
        reason = f"no watch of this lake runs here: there is no status in {str(file)!r}"
        return Health(False, False, reason, None, None)
    return judged(found, time.monotonic(), ended=has_ended(found.process))


def judged(status: WatchStatus, now_s: float, *, ended: bool) -> Health:
    """The health that follows from a status.

    Args:
        status: The last one that was written.
        now_s: Seconds of the clock that it has its times of.
        ended: Whether its process has ended.
    """
    age_s, process = now_s - status.progress_s, f"process {status.process.pid}"
    dead = ""
    if ended or age_s < 0:  # the clock starts anew when the machine does
        dead = f"the watch has ended ({process})"
    elif age_s > status.patience_s:
        dead = (
            f"the watch hangs ({process}): no progress for {age_s:.0f} s while {status.phase}, "
            f"and {status.patience_s:.0f} s are the most"
        )
    reason = dead or _why_not_ready(status.reconciled)
    return Health(not dead, not reason, reason, round(age_s, 1), status)


def _why_not_ready(found: Reconciled) -> str:
    if found.failures:
        last = found.succeeded_at or "none"
        return f"the last {found.failures} reconciliations failed (last success: {last})"
    return "" if found.succeeded_at else "no reconciliation has ended yet"


def status_file(lake: str, named: str = "") -> Path:
    """The status file of a lake's watch: the one that is named, else one in the cache folder."""
    if named:
        return Path(named).absolute()
    digest = hashlib.sha256(location.locate(lake).encode()).hexdigest()[:16]
    return cache_folder() / "watch" / f"{digest}.json"


def read_status(file: Path) -> WatchStatus | None:
    """The status in a file; None = there is none that can be read."""
    try:
        return _status(json.loads(file.read_bytes()))
    except (OSError, ValueError, TypeError, KeyError):
        return None


def write_status(file: Path, status: WatchStatus) -> None:
    """Replaces the status in a file.

    Raises:
        OSError: It cannot be written.
    """
    write_whole(file, json.dumps(asdict(status)))


def _status(facts: Mapping[str, Any]) -> WatchStatus:
    process, reconciled = Process(**facts["process"]), Reconciled(**facts["reconciled"])
    return WatchStatus(**{**facts, "process": process, "reconciled": reconciled})
