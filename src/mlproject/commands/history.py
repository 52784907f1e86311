"""Prints which version served each alias or stage when, and why; or its predictions at a time.

mlflow run . -e history --env-manager local
mlflow run . -e history --env-manager local -P at=2026-01-31 -P image=/photos/daisy/1.jpg

It reads the tables alone, without a tracking server or Spark, so it makes no MLflow run.
"""

import textwrap
from datetime import datetime
from typing import Any

import mlproject
from mlproject.commands import console
from mlproject.rollout.history import (
    AliasHistory,
    CurrentPrediction,
    CurrentPredictions,
    HistoryResult,
    Image,
    version_name,
)
from mlproject.rollout.ledger import SERVING, Period

LABELS = 5  # labels of each alias in the table, the most frequent; JSON holds all


def run(*, json: bool = False, **options: Any) -> None:
    """Prints the history of each alias, or its predictions at a time.

    Args:
        json: true = JSON on stdout instead of tables.
    """
    found = mlproject.history(**options)
    if json:
        console.print_json(_facts(found))
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
                f"{_count_images(one):,}",
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


def _facts(found: HistoryResult) -> list[dict[str, Any]]:
    if found.image:
        return [_prediction_facts(found, found.image, one) for one in found.predictions]
    if found.at:
        return [_count_facts(found.at, one) for one in found.counts]
    return [
        {
            "pointer": one.alias,
            "served": [_period_facts(period) for period in one.served],
            "attempts": [_period_facts(period) for period in one.attempts],
        }
        for one in found.histories
    ]


def _period_facts(period: Period) -> dict[str, Any]:
    last, counted = period.last, period.last.covered
    return {
        **_version_facts(period),
        "state": last.state,
        "from": period.began.at,
        "until": period.until,
        "seconds": period.seconds,
        "coverage": last.coverage,
        "images": counted.images if counted else None,
        "answered": counted.predicted if counted else None,
        "errors": counted.errors if counted else None,
        "images_version": counted.images_version if counted else None,
        "why": (period.began if last.state == SERVING else last).reason,
        "run_id": last.run_id,
    }


def _version_facts(period: Period | None) -> dict[str, Any]:
    if period is None:
        return {"version": None, "model_id": None}
    return {"version": period.version.uri, "model_id": period.version.model_id}


def _count_facts(at: datetime, one: CurrentPredictions) -> dict[str, Any]:
    return {
        "pointer": one.alias,
        "at": at,
        **_version_facts(one.period),
        "from": one.period.began.at if one.period else None,
        "answers": _count_images(one),
        "labels": dict(one.labels),
        "errors": dict(one.errors),
    }


def _prediction_facts(found: HistoryResult, image: Image, one: CurrentPrediction) -> dict[str, Any]:
    made = one.prediction
    return {
        "pointer": one.alias,
        "at": found.at,
        "image_id": image.image_id,
        "path": image.path,
        "state": image.state,
        **_version_facts(one.period),
        "label": made.label if made else None,
        "score": made.score if made else None,
        "top": made.top if made else [],
        "error": made.error if made else None,
        "scored_at": made.scored_at if made else None,
        "run_id": made.run_id if made else None,
    }


def _count_images(one: CurrentPredictions) -> int:
    return sum(count for _, count in (*one.labels, *one.errors))
