"""Prints which version served each alias or stage when, and why; or its predictions at a time.

mlflow run . -e history --env-manager local
mlflow run . -e history --env-manager local -P at=2026-01-31 -P image=/photos/daisy/1.jpg

It reads the tables alone, without a tracking server or Spark, so it makes no MLflow run.
"""

import textwrap
from datetime import datetime
from typing import Any

import mlproject
from mlproject.commands import console, history_json
from mlproject.rollout.history import (
    AliasHistory,
    HistoryResult,
    Image,
    version_name,
)
from mlproject.rollout.ledger import Period

LABELS = 5  # labels of each alias in the table, the most frequent; JSON holds all


def run(*, json: bool = False, **options: Any) -> None:
    """Prints the history of each alias, or its predictions at a time.

    Args:
        json: true = JSON on stdout instead of tables.
    """
    found = mlproject.history(**options)
    if json:
        console.print_json(history_json.facts(found))
    elif found.image:
        _print_predictions(found, found.image)
    elif found.at:
        _print_counts(found, found.at)
    else:
        for one in found.histories:
            _print_history(found, one)


def _print_history(found: HistoryResult, one: AliasHistory) -> None:
    _print_wrapped(f"{one.alias} (times are UTC)")
    columns = ("version", "from", "until", "for ", "predicted ", "errors ", "reason")
    rows = [[*_row(found, period), period.began.reason] for period in one.served]
    if rows:
        console.print_table(columns, rows)
    else:
        print("No version has served yet.")
    if one.attempts:
        print("\nVersions that were rolled out and did not serve:")
        rows = [[each.last.state, *_row(found, each), each.last.reason] for each in one.attempts]
        console.print_table(("state", *columns), rows)
    print()


def _row(found: HistoryResult, period: Period) -> list[str]:
    counted, coverage = period.last.covered, f"{period.last.coverage:.1%}"
    return [
        version_name(found.rows, period.version),
        _clock(period.began.at),
        _clock(period.until) if period.until else "now",
        _duration(period.seconds),
        # The first release counted nothing.
        f"{counted.predicted:,} of {counted.images:,}\n{coverage}" if counted else coverage,
        f"{counted.errors:,}" if counted else "",
    ]


def _print_counts(found: HistoryResult, at: datetime) -> None:
    _print_wrapped(f"Predictions of the serving versions at {at:%Y-%m-%d %H:%M:%S} UTC")
    rows = []
    for one in found.counts:
        if one.period is None:
            rows.append([one.alias, "none", "", "", "", ""])
            continue
        labels = [f"{label} {count:,}" for label, count in one.labels[:LABELS]]
        if len(one.labels) > LABELS:
            labels.append(f"and {len(one.labels) - LABELS} more")
        rows.append(
            [
                one.alias,
                version_name(found.rows, one.period.version),
                _clock(one.period.began.at),
                f"{history_json.count_images(one):,}",
                "\n".join(labels),
                "\n".join(f"{error} {count:,}" for error, count in one.errors),
            ]
        )
    columns = ("alias or stage", "version", "serving since", "predictions ", "labels", "errors")
    console.print_table(columns, rows)


def _print_predictions(found: HistoryResult, image: Image) -> None:
    when = f"at {found.at:%Y-%m-%d %H:%M:%S} UTC" if found.at else "now"
    _print_wrapped(f"Predictions of the serving versions {when} for {image.path} ({image.state})")
    _print_wrapped(f"image_id {image.image_id}, since {image.since:%Y-%m-%d %H:%M:%S} UTC")
    rows = []
    for one in found.predictions:
        version = version_name(found.rows, one.period.version) if one.period else "none"
        made = one.prediction
        if made is None:
            rows.append([one.alias, version, "no prediction" if one.period else "", "", "", ""])
            continue
        score = "" if made.score is None else f"{made.score:.4f}"
        clock = _clock(made.scored_at)
        rows.append([one.alias, version, made.label or "", score, made.error or "", clock])
    console.print_table(("alias or stage", "version", "label", "score ", "error", "scored"), rows)


def _duration(duration_s: float) -> str:
    """A duration in the unit that fits."""
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if duration_s >= 2 * size:
            return f"{duration_s / size:.1f} {unit}"
    return f"{duration_s:.0f} s"


def _clock(at: datetime) -> str:
    return f"{at:%Y-%m-%d}\n{at:%H:%M:%S}"  # two lines, so that the reason has room


def _print_wrapped(text: str) -> None:
    print(textwrap.fill(text, console.WIDTH))
