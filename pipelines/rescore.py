"""Rolls out the version behind each alias: scores what is missing, then lets it serve.

mlflow run . -e rescore --env-manager local -P pointers=models:/photos@champion
"""

import argparse
import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import Any

from mlproject.rollout import rescoring
from mlproject.rollout.decision import Policy
from mlproject.rollout.ledger import SCORING
from mlproject.rollout.reconciliation import RolloutResult
from pipelines import (
    add_json,
    command,
    listed,
    plan,
    progress,
    stopped_by_signals,
)
from pipelines import parser as new_parser
from pipelines.score import add_task_timeout


def parser() -> argparse.ArgumentParser:
    """The arguments of `rescore`."""
    arguments = new_parser("rescore", __doc__)
    add_arguments(arguments)
    add_json(arguments)
    arguments.add_argument(
        "--plan", default="false", choices=("true", "false"), help="true = tell, do nothing"
    )
    return arguments


def add_arguments(arguments: argparse.ArgumentParser) -> None:
    """The options that `rescore` and `watch` share."""
    plan.add_arguments(arguments)
    add, rules = arguments.add_argument, Policy()
    add(
        "--min_coverage",
        type=float,
        default=rules.min_coverage,
        help="share of the images that a version must have predicted to serve, 0..1",
    )
    add(
        "--max_error_rate",
        type=float,
        default=rules.max_error_rate,
        help="share of the images readable before that may get an error, 0..1",
    )
    add_task_timeout(arguments)


def main(arguments: argparse.Namespace) -> None:
    """Rolls out each alias; one that fails does not stop the others."""
    if arguments.plan == "true":
        plan.main(arguments)
        return
    with stopped_by_signals() as stopped, callbacks() as printing:
        done = rescoring.rescore(**options(arguments), stop=stopped.is_set, **printing)
    if done.stopped:
        raise KeyboardInterrupt


def options(arguments: argparse.Namespace) -> dict[str, Any]:
    """The parameters of `rescore` that `watch` has too."""
    return {
        "pointers": listed(arguments.pointers),
        "lake": arguments.lake,
        "max_images": arguments.max_images,
        "max_bytes": arguments.max_bytes,
        "max_minutes": arguments.max_minutes,
        "retry": arguments.retry == "true",
        "min_coverage": arguments.min_coverage,
        "max_error_rate": arguments.max_error_rate,
        "task_timeout": arguments.task_timeout,
    }


@contextlib.contextmanager
def callbacks() -> Iterator[dict[str, Any]]:
    """Prints what `rescore` and `watch` report, as keyword arguments of theirs."""
    bars: dict[str, Callable[[int, int], None]] = {}  # of the version that is being scored
    with contextlib.ExitStack() as stack:

        def on_progress(version: str, done: int, total: int) -> None:
            if version not in bars:
                close()
                [bars[version]] = stack.enter_context(progress(f"score {version}"))
            bars[version](done, total)

        def close() -> None:
            stack.close()
            bars.clear()

        def on_rollout(result: RolloutResult) -> None:
            close()
            _print(result)

        def on_fault(message: str) -> None:
            close()
            print(message, file=sys.stderr, flush=True)

        yield {
            "on_progress": on_progress,
            "on_message": lambda message: print(message, flush=True),
            "on_fault": on_fault,
            "on_rollout": on_rollout,
        }


def _print(result: RolloutResult) -> None:
    alias = result.version.pointer
    print(f"{alias}: {_scored(result)}\n{alias}: {_serving(result)}", flush=True)
    if result.trouble:
        print(f"{alias}: {result.trouble}", file=sys.stderr, flush=True)


def _scored(result: RolloutResult) -> str:
    scored = result.scored
    if scored and (scored.images or scored.unreadable):
        return scored.summary()
    return "nothing was scored" if result.coverage.missing else "nothing to score"


def _serving(result: RolloutResult) -> str:
    now, missing = result.version.uri, result.coverage.missing
    if result.state == SCORING:
        serves = f"{result.before.uri} serves" if result.before else "no version serves"
        return f"{serves}, as before; {now} has {missing} images left to score"
    if result.before is None:
        return f"{now} serves now"
    if result.before == result.version:
        left = f"; {missing} images left to score" if missing else ""
        return f"{now} serves, as before{left}"
    return f"{now} serves now, before {result.before.uri}"


if __name__ == "__main__":
    command(parser(), main)
