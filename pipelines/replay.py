"""Asks a version again for what it said of one image, and tells exactly what differs.

mlflow run . -e replay --env-manager local -P model=models:/photos/3 -P image=/photos/daisy/1.jpg

It ends with 0 when the answer is the same, and with 3 when it is not. Nothing is written.
"""

import argparse
import json
import os
import tempfile
import textwrap
from pathlib import Path
from typing import Any

from mlproject.errors import RefusedError, UserError
from mlproject.integrations import mlflow_tracking
from mlproject.integrations.local_files import output_to
from mlproject.lake import location
from mlproject.rollout import replaying
from mlproject.rollout.history import Answer
from mlproject.rollout.replaying import Difference, Replayed
from mlproject.scoring import workers
from pipelines import add_json, command, print_table
from pipelines import parser as new_parser


def parser() -> argparse.ArgumentParser:
    """The arguments of `replay`."""
    arguments = new_parser("replay", __doc__)
    add = arguments.add_argument
    add("--model", required=True, help="model URI: a version, or a pointer = what its readers see")
    add("--image", required=True, help="path as in the tables, or image_id")
    add("--lake", default="lake", help="folder or URI of the tables")
    add(
        "--tolerance",
        type=float,
        default=replaying.TOLERANCE,
        help="scores that differ by this or less are the same",
    )
    add_json(arguments)
    return arguments


def main(arguments: argparse.Namespace) -> None:
    """Replays one row."""
    if not arguments.tolerance >= 0:
        raise UserError(f"tolerance={arguments.tolerance} is below 0")
    client = mlflow_tracking.connect()
    lake = location.locate(arguments.lake)
    row = replaying.find(client, lake, arguments.model, arguments.image)
    os.environ.update(workers.ENVIRONMENT)  # before a framework is imported, as in workers
    # What frameworks print at import and load is neither our answer nor an error.
    with tempfile.TemporaryDirectory() as folder, output_to(Path(folder) / "log.txt"):
        found = replaying.replay(client, lake, row, tolerance=arguments.tolerance)
    if arguments.json == "true":
        print(json.dumps(_facts(row.image_id, found), indent=2))
    else:
        _print(row.image_id, found)
    if found.differences:
        what = ", ".join(one.what for one in found.differences)
        raise RefusedError(f"{found.then.version.uri} answers otherwise now: {what}")


def _print(image_id: str, found: Replayed) -> None:
    then, now = found.then, found.now
    print(f"Image {image_id}\nasked of {then.version.uri} ({then.version.model_id})\n")
    different = {one.what for one in found.differences}
    rows = []
    for what, was in _columns(then).items():
        said = "differs" if what in different else "same"
        rows.append([what, _words(was), _words(_columns(now)[what]), said])
    scored = f"{then.scored_at:%Y-%m-%d %H:%M:%S} UTC"
    print_table(("", f"then ({scored})", "now", ""), rows)
    if found.causes:
        print("\nNot as it was then:")
        rows = [[one.what, _words(one.then), _words(one.now)] for one in found.causes]
        print_table(("", "then", "now"), rows)
    for note in found.notes:
        print("\n" + "\n".join(textwrap.wrap(note, 100)))
    print(f"\nThe answer {'differs' if found.differences else 'is the same'}.")


def _words(value: Any) -> str:
    if isinstance(value, list):
        return "\n".join(map(_words, value))
    return "none" if value is None else f"{value:.9g}" if isinstance(value, float) else str(value)


def _columns(said: Answer) -> dict[str, Any]:
    return {
        "label": said.label,
        "score": said.score,
        "error": said.error,
        "top_labels": [label for label, _ in said.top],
        "top_scores": [score for _, score in said.top],
    }


def _facts(image_id: str, found: Replayed) -> dict[str, Any]:
    then = found.then
    return {
        "image_id": image_id,
        "version": then.version.uri,
        "model_id": then.version.model_id,
        "run_id": then.run_id,
        "scored_at": then.scored_at.isoformat(),
        "same": not found.differences,
        "then": _columns(then),
        "now": _columns(found.now),
        "differences": [_pair(one) for one in found.differences],
        "causes": [_pair(one) for one in found.causes],
        "notes": list(found.notes),
    }


def _pair(one: Difference) -> dict[str, Any]:
    return {"what": one.what, "then": one.then, "now": one.now}


if __name__ == "__main__":
    command(parser(), main)
