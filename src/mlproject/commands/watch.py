"""Ingests new images and rolls out moved aliases and stages, again and again, until stopped.

mlflow run . -e watch --env-manager local -P source=photos

With a webhook the next reconciliation comes sooner; the server's URL must reach this machine:

mlflow run . -e watch --env-manager local -P webhook=https://HOST/mlflow -P listen=0.0.0.0:8321
"""

from typing import Any

import mlproject
from mlproject.commands import console, ingest, rollouts


def run(**options: Any) -> None:
    """Watches until SIGTERM or Ctrl-C; the micro-batch that is being scored is committed."""
    with console.stopped_by_signals() as stopped, rollouts.printed() as callbacks:
        result = mlproject.watch(
            **options,
            stop=stopped.is_set,
            on_ingest=lambda result: console.print_message(ingest.summary(result)),
            **callbacks,
        )
    print(f"Stopped after {result.reconciliations} reconciliations; what was committed stays")
