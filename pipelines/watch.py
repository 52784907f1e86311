"""Ingests new images and rolls out moved aliases, again and again, until it is stopped.

mlflow run . -e watch --env-manager local -P source=photos

With a webhook the next reconciliation comes sooner; the server's URL must reach this machine:

mlflow run . -e watch --env-manager local -P webhook=https://HOST/mlflow -P listen=0.0.0.0:8321
"""

import argparse

from mlproject.commands.ingest import summary
from mlproject.service import watching
from pipelines import command, rescore, stopped_by_signals
from pipelines import parser as new_parser


def parser() -> argparse.ArgumentParser:
    """The arguments of `watch`."""
    arguments = new_parser("watch", __doc__)
    rescore.add_arguments(arguments)
    add = arguments.add_argument
    add(
        "--source",
        default="",
        help="folder or URI that is ingested; empty = none",
    )
    add("--interval", type=float, default=30, help="seconds between two reconciliations, about")
    add("--idle", type=float, default=60, help="seconds without work until Spark is ended")
    add(
        "--webhook",
        default="",
        help="URL at which MLflow reaches this machine",
    )
    add("--listen", default="127.0.0.1:8321", help="host:port of the webhook listener")
    return arguments


def main(arguments: argparse.Namespace) -> None:
    """Watches until SIGTERM or Ctrl-C; the micro-batch at hand is committed then."""
    with stopped_by_signals() as stopped, rescore.callbacks() as printing:
        done = watching.watch(
            **rescore.options(arguments),
            source=arguments.source,
            interval=arguments.interval,
            idle=arguments.idle,
            webhook=arguments.webhook,
            listen=arguments.listen,
            on_ingest=lambda result: print(summary(result), flush=True),
            stop=stopped.is_set,
            **printing,
        )
    print(f"Stopped after {done.reconciliations} reconciliations; what was committed stays")


if __name__ == "__main__":
    command(parser(), main)
