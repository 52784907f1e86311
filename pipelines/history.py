"""Tells which version readers of each pointer saw when, and why; or what they saw at a time.

mlflow run . -e history --env-manager local
mlflow run . -e history --env-manager local -P at=2026-01-31 -P image=/photos/daisy/1.jpg

It asks the tables alone: no tracking server, no Spark. So it makes no MLflow run of its own either.
"""

import argparse
import json
import textwrap
from datetime import UTC, datetime
from typing import Any

from mlproject.lake import location
from mlproject.rollout import history, ledger
from mlproject.rollout.history import Answer, Image, Period, Seen
from mlproject.rollout.ledger import Page
from pipelines import add_json, command, listed, print_table
from pipelines import parser as new_parser

LABELS = 5  # labels of each pointer in the table, the most frequent; JSON holds all


def parser() -> argparse.ArgumentParser:
    """The arguments of `history`."""
    arguments = new_parser("history", __doc__)
    add = arguments.add_argument
    add("--lake", default="lake", help="folder or URI of the tables")
    add("--pointers", default="", help="comma-separated; empty = all pointers in rollouts")
    add("--at", default="", help="what readers saw then: a date (its end) or time, UTC or +HH:MM")
    add("--image", default="", help="path as in the tables, or image_id: what readers saw for it")
    add_json(arguments)
    return arguments


def main(arguments: argparse.Namespace) -> None:
    """Prints what the ledger tells, or what readers saw at a time."""
    lake = location.locate(arguments.lake)
    page = ledger.read(lake)
    wanted = listed(arguments.pointers)
    pointers = history.known(page, wanted)
    at = ledger.moment(arguments.at) if arguments.at else None
    as_json = arguments.json == "true"
    if arguments.image:
        image = history.image(lake, arguments.image, at)
        told = {one: history.answer(lake, page, one, image, at) for one in pointers}
        if as_json:
            _print_json([_answer_facts(one, image, at, *told[one]) for one in pointers])
        else:
            _print_answers(page, image, at, told)
    elif at is not None:
        seen = [history.seen(lake, page, one, at) for one in pointers]
        if as_json:
            _print_json([_seen_facts(one, at) for one in seen])
        else:
            _print_seen(page, seen, at)
    elif as_json:
        _print_json([_facts(page, one) for one in pointers])
    else:
        for one in pointers:
            _print_history(page, one)


def _print_history(page: Page, pointer: str) -> None:
    _print_line(f"{pointer} (times are UTC)")
    columns = ("version", "from", "until", "for ", "answered ", "errors ", "why")
    served = history.periods(page, pointer)
    rows = [[*_row(page, found), found.began.reason] for found in served]
    if rows:
        print_table(columns, rows)
    else:
        print("No version has served readers yet.")
    tried = history.attempts(page, pointer)
    if tried:
        print("\nVersions that were to serve, and did not:")
        rows = [[found.last.state, *_row(page, found), found.last.reason] for found in tried]
        print_table(("state", *columns), rows)
    print()


def _row(page: Page, found: Period) -> list[str]:
    covered, coverage = found.last.covered, f"{found.last.coverage:.1%}"
    return [
        history.name(page, found.version),
        _clock(found.began.at),
        _clock(found.until) if found.until else "now",
        lasted(seconds(found)),
        # The first release counted nothing.
        f"{covered.predicted:,} of {covered.images:,}\n{coverage}" if covered else coverage,
        f"{covered.errors:,}" if covered else "",
    ]


def _print_seen(page: Page, seen: list[Seen], at: datetime) -> None:
    _print_line(f"What readers saw at {at:%Y-%m-%d %H:%M:%S} UTC")
    rows = []
    for found in seen:
        period = found.period
        if period is None:
            rows.append([found.pointer, "nothing", "", "", "", ""])
            continue
        counted = sum(count for _, count in (*found.labels, *found.errors))
        labels = [f"{label} {count:,}" for label, count in found.labels[:LABELS]]
        if len(found.labels) > LABELS:
            labels.append(f"and {len(found.labels) - LABELS} more")
        rows.append(
            [
                found.pointer,
                history.name(page, period.version),
                _clock(period.began.at),
                f"{counted:,}",
                "\n".join(labels),
                "\n".join(f"{error} {count:,}" for error, count in found.errors),
            ]
        )
    print_table(("pointer", "version", "serving since", "answers ", "labels", "errors"), rows)


def _print_answers(
    page: Page,
    image: Image,
    at: datetime | None,
    told: dict[str, tuple[Period | None, Answer | None]],
) -> None:
    when = f"at {at:%Y-%m-%d %H:%M:%S} UTC" if at else "now"
    _print_line(f"What readers saw {when} for {image.path} ({image.state})")
    _print_line(f"image_id {image.image_id}, since {image.since:%Y-%m-%d %H:%M:%S} UTC")
    rows = []
    for pointer, (period, found) in told.items():
        version = history.name(page, period.version) if period else "nothing"
        if found is None:
            rows.append([pointer, version, "no answer" if period else "", "", "", ""])
            continue
        score = "" if found.score is None else f"{found.score:.4f}"
        scored = _clock(found.scored_at)
        rows.append([pointer, version, found.label or "", score, found.error or "", scored])
    print_table(("pointer", "version", "label", "score ", "error", "scored"), rows)


def _facts(page: Page, pointer: str) -> dict[str, Any]:
    return {
        "pointer": pointer,
        "served": [_period_facts(found) for found in history.periods(page, pointer)],
        "attempts": [_period_facts(found) for found in history.attempts(page, pointer)],
    }


def _period_facts(found: Period) -> dict[str, Any]:
    last, covered = found.last, found.last.covered
    return {
        **_version_facts(found),
        "state": last.state,
        "from": found.began.at.isoformat(),
        "until": found.until.isoformat() if found.until else None,
        "seconds": seconds(found),
        "coverage": last.coverage,
        "images": covered.images if covered else None,
        "answered": covered.predicted if covered else None,
        "errors": covered.errors if covered else None,
        "images_version": covered.images_version if covered else None,
        "why": (found.began if last.state == ledger.SERVING else last).reason,
        "run_id": last.run_id,
    }


def _version_facts(found: Period | None) -> dict[str, Any]:
    version = found.version if found else None
    uri, model_id = (version.uri, version.model_id) if version else (None, None)
    return {"version": uri, "model_id": model_id}


def _seen_facts(found: Seen, at: datetime) -> dict[str, Any]:
    return {
        "pointer": found.pointer,
        "at": at.isoformat(),
        **_version_facts(found.period),
        "from": found.period.began.at.isoformat() if found.period else None,
        "answers": sum(count for _, count in (*found.labels, *found.errors)),
        "labels": dict(found.labels),
        "errors": dict(found.errors),
    }


def _answer_facts(
    pointer: str, image: Image, at: datetime | None, period: Period | None, found: Answer | None
) -> dict[str, Any]:
    return {
        "pointer": pointer,
        "at": at.isoformat() if at else None,
        "image_id": image.image_id,
        "path": image.path,
        "state": image.state,
        **_version_facts(period),
        "label": found.label if found else None,
        "score": found.score if found else None,
        "top": [list(pair) for pair in found.top] if found else [],
        "error": found.error if found else None,
        "scored_at": found.scored_at.isoformat() if found else None,
        "run_id": found.run_id if found else None,
    }


def seconds(found: Period) -> float:
    """How long a period lasted; one whose clock was ahead, and that goes on, not below 0."""
    return max(0.0, ((found.until or datetime.now(UTC)) - found.began.at).total_seconds())


def lasted(duration_s: float) -> str:
    """A duration in the unit that fits."""
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if duration_s >= 2 * size:
            return f"{duration_s / size:.1f} {unit}"
    return f"{duration_s:.0f} s"


def _clock(at: datetime) -> str:
    return f"{at:%Y-%m-%d}\n{at:%H:%M:%S}"  # two lines, so that `why` has room


def _print_line(words: str) -> None:
    print("\n".join(textwrap.wrap(words, 100)))


def _print_json(facts: object) -> None:
    print(json.dumps(facts, indent=2))


if __name__ == "__main__":
    command(parser(), main)
