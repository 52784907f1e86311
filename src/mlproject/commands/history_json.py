"""The JSON of `history`."""

from datetime import datetime
from typing import Any

from mlproject.rollout.history import CurrentPrediction, CurrentPredictions, HistoryResult, Image
from mlproject.rollout.ledger import SERVING, Period


def facts(found: HistoryResult) -> list[dict[str, Any]]:
    """One object for each alias or stage."""
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
        "answers": count_images(one),
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


def count_images(one: CurrentPredictions) -> int:
    """Images with a prediction at that time."""
    return sum(count for _, count in (*one.labels, *one.errors))
