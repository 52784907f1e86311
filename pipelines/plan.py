"""Tells what rescore would do at each pointer, why, and what it would cost; does nothing.

mlflow run . -e plan --env-manager local
"""

import argparse
import json
import textwrap
from typing import Any

from mlproject.errors import UserError
from mlproject.integrations import mlflow_tracking, spark_session
from mlproject.lake import location
from mlproject.rollout import planning
from mlproject.rollout.planning import LOST, SCORE, SWITCH, Missing, Plan
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
    add("--pointers", default="", help="comma-separated; empty = all pointers in rollouts")
    add("--lake", default="lake", help="folder or URI of the tables")
    add("--max_images", type=int, default=0, help="images to score in a run; 0 = all")
    add("--max_bytes", type=int, default=0, help="bytes to read in a run; 0 = no limit")
    add("--max_minutes", type=float, default=0, help="minutes a run scores; 0 = no limit")
    add("--retry", default="false", choices=("true", "false"), help="true = also what has failed")


def main(arguments: argparse.Namespace) -> None:
    """Prints the plan of each pointer."""
    client = mlflow_tracking.connect()
    wanted = listed(arguments.pointers)
    plans = planning.plan(
        client,
        location.locate(arguments.lake),
        wanted,
        spark_session.kind(),
        retry=arguments.retry == "true",
    )
    limits = planning.Limits(arguments.max_images, arguments.max_bytes, arguments.max_minutes)
    left = planning.left(plans, limits)
    if arguments.json == "true":
        told = [_facts(plan, rest) for plan, rest in zip(plans, left, strict=True)]
        print(json.dumps(told, indent=2))
    else:
        _print(plans, left)
    lost = [f"{plan.pointer}: {plan.why}" for plan in plans if plan.action == LOST]
    if wanted and lost:
        raise UserError(lost[0])


def _print(plans: list[Plan], left: list[int]) -> None:
    columns = ("pointer", "behind it", "readers see", "images ", "answered ", "missing ")
    print_table(
        (*columns, "MB ", "time "),
        [_row(plan) for plan in plans],
    )
    print()
    for plan, rest in zip(plans, left, strict=True):
        for line in _words(plan, rest):
            print(textwrap.fill(line, 100, subsequent_indent="    ", break_on_hyphens=False))


def _row(plan: Plan) -> list[object]:
    seen = plan.readers.version.version if plan.readers else "nothing"
    if plan.target is None:
        return [plan.pointer, "nothing", seen, "", "", "", "", ""]
    covered = plan.target.covered
    counts = (covered.images, covered.predicted, covered.missing)
    return [
        plan.pointer,
        plan.target.version.version,
        seen,
        *(f"{count:,}" for count in counts),
        f"{plan.target.size_bytes / 1e6:,.1f}",
        duration(plan.target.seconds) if covered.missing else "",
    ]


def _words(plan: Plan, left: int) -> list[str]:
    does = {
        SCORE: "score, then readers see it",
        SWITCH: "readers switch to it at once",
        LOST: "it points at nothing",
    }
    lines = [f"{plan.pointer}: {does.get(plan.action, plan.action)}. Why: {plan.why}"]
    for missing in planning.work(plan):
        name, count = missing.version.uri, missing.covered.missing
        if missing.rate is None:
            lines.append(f"  {name}: {count} images, in a time that nobody has measured yet")
        else:
            lines.append(
                f"  {name}: {count} images at {missing.rate.images_per_second:.1f}/s, "
                f"measured on {missing.rate.source}"
            )
    if left:
        lines.append(f"  {left} images would be left by the limits of the run")
    return lines


def _facts(plan: Plan, left: int) -> dict[str, Any]:
    return {
        "pointer": plan.pointer,
        "action": plan.action,
        "why": plan.why,
        "left": left,
        "version": _version(plan.target),
        "readers": _version(plan.readers),
    }


def _version(found: Missing | None) -> dict[str, Any] | None:
    if found is None:
        return None
    return {
        "uri": found.version.uri,
        "model_id": found.version.model_id,
        "images": found.covered.images,
        "answered": found.covered.predicted,
        "missing": found.covered.missing,
        "coverage": found.covered.share,
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
