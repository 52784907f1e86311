"""Prints what `rescore` would do at each alias or stage, why, and what it would cost.

mlflow run . -e plan --env-manager local
"""

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import mlproject
from mlproject.commands import console
from mlproject.errors import UserError

if TYPE_CHECKING:
    from mlproject.rollout.planning import AliasPlan, Backlog

ACTIONS = {
    "score": "score, then serve",
    "switch": "serve at once",
    "lost": "it names no version",
}


def run(*, json: bool = False, **options: Any) -> None:
    """Prints the plan of each alias.

    Args:
        json: true = JSON on stdout instead of tables.
    """
    plans = mlproject.plan(**options).aliases
    if json:
        console.print_json([_facts(plan) for plan in plans])
    else:
        _print(plans)
    lost = [f"{plan.alias}: {plan.reason}" for plan in plans if plan.action == "lost"]
    if options["pointers"] and lost:
        raise UserError(lost[0])


def _print(plans: Sequence["AliasPlan"]) -> None:
    counts = ("images ", "predicted ", "retryable ", "missing ", "MB ", "time ")
    columns = ("alias or stage", "names", "serving", *counts)
    console.print_table(columns, [_row(plan) for plan in plans])
    print()
    for plan in plans:
        for line in _lines(plan):
            print(
                textwrap.fill(line, console.WIDTH, subsequent_indent="    ", break_on_hyphens=False)
            )


def _row(plan: "AliasPlan") -> list[object]:
    serving = plan.serving.version.version if plan.serving else "none"
    if plan.target is None:
        return [plan.alias, "none", serving, "", "", "", "", "", ""]
    counted = plan.target.coverage
    retryable = plan.target.stored.images
    counts = (counted.images, counted.predicted, retryable, counted.missing)
    return [
        plan.alias,
        plan.target.version.version,
        serving,
        *(f"{count:,}" for count in counts),
        f"{plan.target.size_bytes / 1e6:,.1f}",
        duration(plan.target.seconds) if counted.missing else "",
    ]


def _lines(plan: "AliasPlan") -> list[str]:
    lines = [f"{plan.alias}: {ACTIONS.get(plan.action, plan.action)}. Reason: {plan.reason}"]
    for backlog in plan.work:
        name, count = backlog.version.uri, backlog.coverage.missing
        if backlog.rate is None:
            lines.append(f"  {name}: {count} images; the time is not known, as no run measured it")
        else:
            lines.append(
                f"  {name}: {count} images at {backlog.rate.images_per_second:.1f}/s, "
                f"measured on {backlog.rate.source}"
            )
    if plan.target and plan.target.stored.images:
        stored = plan.target.stored
        lines.append(
            f"  {plan.target.version.uri}: {stored.images} images have an error that can change "
            f"({stored.summary()}); rescore -P retry=errors scores them again"
        )
    if plan.left:
        lines.append(f"  the limits of the run would leave {plan.left} images")
    return lines


def _facts(plan: "AliasPlan") -> dict[str, Any]:
    return {
        "pointer": plan.alias,
        "action": plan.action,
        "why": plan.reason,
        "left": plan.left,
        "version": _version(plan.target),
        "readers": _version(plan.serving),
    }


def _version(found: "Backlog | None") -> dict[str, Any] | None:
    if found is None:
        return None
    return {
        "uri": found.version.uri,
        "model_id": found.version.model_id,
        "images": found.coverage.images,
        "answered": found.coverage.predicted,
        "retryable": found.stored.codes,
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
