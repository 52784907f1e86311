"""Predicts one image again with the version of a row, and prints exactly what differs.

mlflow run . -e replay --env-manager local -P model=models:/photos/3 -P image=/photos/daisy/1.jpg

The exit code is 0 if the prediction is the same, and 3 if it is not. Nothing is written.
"""

import textwrap
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import mlproject
from mlproject.commands import console
from mlproject.errors import RefusedError

if TYPE_CHECKING:
    from mlproject.replays.replaying import ReplayResult
    from mlproject.rollout.history import Prediction


def run(*, json: bool = False, **options: Any) -> None:
    """Replays one row and prints both predictions.

    Args:
        json: true = JSON on stdout instead of tables.
    """
    found = mlproject.replay(**options)
    if json:
        console.print_json(_facts(found))
    else:
        _print(found)
    if found.differences:
        columns = ", ".join(one.what for one in found.differences)
        raise RefusedError(f"{found.then.version.uri} predicts other values now: {columns}")


def _print(found: "ReplayResult") -> None:
    then, now = found.then, found.now
    print(f"Image {found.image_id}\npredicted by {then.version.uri} ({then.version.model_id})\n")
    different = {one.what for one in found.differences}
    rows = []
    for column, value in _columns(then).items():
        same = "differs" if column in different else "same"
        rows.append([column, _text(value), _text(_columns(now)[column]), same])
    scored = f"{then.scored_at:%Y-%m-%d %H:%M:%S} UTC"
    console.print_table(("", f"then ({scored})", "now", ""), rows)
    if found.causes:
        print("\nChanged since then:")
        rows = [[one.what, _text(one.then), _text(one.now)] for one in found.causes]
        console.print_table(("", "then", "now"), rows)
    for note in found.notes:
        print("\n" + textwrap.fill(note, console.WIDTH))
    print(f"\nThe prediction {'differs' if found.differences else 'is the same'}.")


def _text(value: Any) -> str:
    if isinstance(value, list):
        return "\n".join(map(_text, value))
    return "none" if value is None else f"{value:.9g}" if isinstance(value, float) else str(value)


def _columns(made: "Prediction") -> dict[str, Any]:
    return {
        "label": made.label,
        "score": made.score,
        "error": made.error,
        "top_labels": [label for label, _ in made.top],
        "top_scores": [score for _, score in made.top],
    }


def _facts(found: "ReplayResult") -> dict[str, Any]:
    then = found.then
    return {
        "image_id": found.image_id,
        "version": then.version.uri,
        "model_id": then.version.model_id,
        "run_id": then.run_id,
        "scored_at": then.scored_at,
        "same": not found.differences,
        "then": _columns(then),
        "now": _columns(found.now),
        "differences": [asdict(one) for one in found.differences],
        "causes": [asdict(one) for one in found.causes],
        "notes": list(found.notes),
    }
