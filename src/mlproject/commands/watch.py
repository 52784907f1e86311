"""Ingests new images and rolls out moved aliases and stages, again and again, until stopped.

mlflow run . -e watch --env-manager local -P source=photos

With a webhook the next reconciliation comes sooner; the server's URL must reach this machine:

mlflow run . -e watch --env-manager local -P webhook=https://HOST/mlflow -P listen=0.0.0.0:8321
"""

import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import mlproject
from mlproject.commands import console, ingest, log_lines, rollouts

if TYPE_CHECKING:
    from mlproject.service.health import Reconciled


def run(*, log: log_lines.Format = "text", **options: Any) -> None:
    """Watches until SIGTERM or Ctrl-C; the micro-batch that is being scored is committed.

    Args:
        log: Lines for a person, or one JSON object a line: text or json.
    """
    with (
        console.logged(log, "watch"),
        console.stopped_by_signals() as stopped,
        rollouts.printed() as callbacks,
    ):
        result = mlproject.watch(
            **options,
            stop=stopped.is_set,
            on_ingest=ingest.print_result,
            on_health=_print_health,
            **callbacks,
        )
        count = result.reconciliations
        message = f"Stopped after {count} reconciliations; what was committed stays"
        log_lines.write(message, reconciliations=count)


def _print_health(found: "Reconciled") -> None:
    log_lines.write(
        f"health: reconciliation {found.reconciliations} at {time.strftime('%H:%M:%S')}: "
        f"{found.aliases} aliases, {found.behind} behind, backlog {found.backlog} images, "
        f"lag {found.lag_s:.0f} s",
        **asdict(found),
    )
