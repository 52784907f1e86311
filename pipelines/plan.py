"""Prints what `rescore` would do at each alias, why, and what it would cost; does nothing.

mlflow run . -e plan --env-manager local
"""

import argparse
import json
import textwrap
from collections.abc import Sequence
from typing import Any

from mlproject.errors import UserError
from mlproject.rollout import planning
from mlproject.rollout.planning import LOST, SCORE, SWITCH, AliasPlan, Backlog
from pipelines import add_json, command, listed, print_table
from pipelines import parser as new_parser


def parser() -> argparse.ArgumentParser:
    """The arguments of `plan`."""
    arguments = new_parser("plan", __doc__)
    add_arguments(arguments)
    add_json(arguments)
    return arguments


def add_arguments(arguments: argparse.ArgumentParser) -> None:
    """The options that `plan`, `rescore` and `watch` share."""
    add = arguments.add_argument
    add("--pointers", default="", help="aliases and stages; empty = all in rollouts")
    add("--lake", default="lake", help="folder or URI of the tables")
    add("--max_images", type=int, default=0, help="images to score in a run; 0 = all")
    add("--max_bytes", type=int, default=0, help="bytes to read in a run; 0 = no limit")
    add("--max_minutes", type=float, default=0, help="minutes that a run scores; 0 = no limit")
    add(
        "--retry",
        default="false",
        choices=("true", "false"),
        help="true = also what failed before",
    )


def main(arguments: argparse.Namespace) -> None:
    """Prints the plan of each alias."""
    wanted = listed(arguments.pointers)
    plans = planning.plan(
        wanted,
        arguments.lake,
        max_images=arguments.max_images,
        max_bytes=arguments.max_bytes,
        max_minutes=arguments.max_minutes,
        retry=arguments.retry == "true",
    ).aliases
    if arguments.json == "true":
        print(json.dumps([_facts(plan) for plan in plans], indent=2))
    else:
        _print(plans)
    lost = [f"{plan.alias}: {plan.reason}" for plan in plans if plan.action == LOST]
    if wanted and lost:
        raise UserError(lost[0])


def _print(plans: Sequence[AliasPlan]) -> None:
    columns = ("alias or stage", "names", "serving", "images ", "predicted ", "missing ")
    print_table((*columns, "MB ", "time "), [_row(plan) for plan in plans])
    print()
    for plan in plans:
        for line in _lines(plan):
            print(textwrap.fill(line, 100, subsequent_indent="    ", break_on_hyphens=False))


def _row(plan: AliasPlan) -> list[object]:
    serving = plan.serving.version.version if plan.serving else "none"
    if plan.target is None:
        return [plan.alias, "none", serving, "", "", "", "", ""]
    counted = plan.target.coverage
    counts = (counted.images, counted.predicted, counted.missing)
    return [
        plan.alias,
        plan.target.version.version,
        serving,
        *(f"{count:,}" for count in counts),
        f"{plan.target.size_bytes / 1e6:,.1f}",
        duration(plan.target.seconds) if counted.missing else "",
    ]


def _lines(plan: AliasPlan) -> list[str]:
    does = {
        SCORE: "score, then serve",
        SWITCH: "serve at once",
        LOST: "it names no version",
    }
    lines = [f"{plan.alias}: {does.get(plan.action, plan.action)}. Reason: {plan.reason}"]
    for backlog in plan.work:
        name, count = backlog.version.uri, backlog.coverage.missing
        if backlog.rate is None:
            lines.append(f"  {name}: {count} images; the time is not known, as nothing measured it")
        else:
            lines.append(
                f"  {name}: {count} images at {backlog.rate.images_per_second:.1f}/s, "
                f"measured on {backlog.rate.source}"
            )
    if plan.left:
        lines.append(f"  the limits of the run would leave {plan.left} images")
    return lines


def _facts(plan: AliasPlan) -> dict[str, Any]:
    return {
        "pointer": plan.alias,
        "action": plan.action,
        "why": plan.reason,
        "left": plan.left,
        "version": _version(plan.target),
        "readers": _version(plan.serving),
    }


def _version(found: Backlog | None) -> dict[str, Any] | None:
    if found is None:
        return None
    return {
        "uri": found.version.uri,
        "model_id": found.version.model_id,
        "images": found.coverage.images,
        "answered": found.coverage.predicted,
        "missing": found.coverage.missing,
        "coverage": found.coverage.share,
        "missing_bytes": found.size_bytes,
        "seconds": found.seconds,
        "measured": found.rate.source if found.rate else None,
    }


def duration(seconds: float | None) -> str:
    """Seconds in the unit that fits."""
    if seconds is None:
        return "unknown"
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


if __name__ == "__main__":
    command(parser(), main)
