"""Prints whether the watch of a lake lives and works, as JSON; the exit code is 0 when it does.

mlflow run . -e health --env-manager local
"""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

import mlproject
from mlproject.commands import console
from mlproject.errors import MachineError

if TYPE_CHECKING:
    from mlproject.service.health import Health


def run(*, probe: Literal["ready", "alive"] = "ready", **options: Any) -> None:
    """Prints the health; exit code 1 when the watch is not what is asked.

    Args:
        probe: What the exit code says: ready = the last reconciliation succeeded; alive = the watch
            runs and makes progress, for a probe that starts it again.
    """
    found = mlproject.health(**options)
    console.print_json(_facts(found))
    if not (found.ready if probe == "ready" else found.alive):
        raise MachineError(f"not {probe}: {found.reason}")


def _facts(found: "Health") -> dict[str, Any]:
    facts = {"alive": found.alive, "ready": found.ready, "reason": found.reason}
    if found.status is None:
        return facts
    status, done = found.status, found.status.reconciled
    since = datetime.fromisoformat(done.succeeded_at) if done.succeeded_at else None
    age_s = (datetime.now(UTC) - since).total_seconds() if since else None
    return {
        **facts,
        "lake": status.lake,
        "host": status.process.host,
        "pid": status.process.pid,
        "started_at": status.started_at,
        "phase": status.phase,
        "progress_age_s": found.age_s,
        "last_reconciliation": done.succeeded_at or None,
        "last_reconciliation_age_s": None if age_s is None else round(age_s, 1),
        "reconciliations": done.reconciliations,
        "failures": done.failures,
        "aliases": done.aliases,
        "behind": done.behind,
        "lag_s": done.lag_s,
        "backlog": done.backlog,
        "faults": status.faults,
        "waits_for": status.waits_for,
    }
