"""Replaying one row of `predictions`: the same image, the same version, here and now; no Spark.

What differs is told with what may be the cause: the version's files, its preprocessing, packages.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import mlflow
import pandas as pd
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from mlproject.errors import UserError
from mlproject.images.image_bytes import of_image
from mlproject.inference import COLUMNS
from mlproject.inference.errors import BAD_ANSWER, MODEL_FAILED, NOT_FINITE
from mlproject.rollout import history, ledger
from mlproject.rollout.history import Answer
from mlproject.versions import version_files
from mlproject.versions.reference_results import SUM_TOLERANCE
from mlproject.versions.registry import Version, resolve
from mlproject.versions.version_files import DIGEST, Files

# Of scores: kernels differ in the last bits with batch size and machine. Of 120 photos, scored by
# two workers and replayed one by one, none differed by more than 2e-6 (Keras and torch, on a CPU).
TOLERANCE = 1e-5
SESSION = "mlproject.session"  # the tag of a run that names the Spark session
UNKNOWN = "so what the version held and ran with then cannot be known"


@dataclass(frozen=True, slots=True)
class Difference:
    """Something that is not now what it was then."""

    what: str
    """A column of `predictions`; or `files`, `preprocessing` or `package NAME`."""
    then: Any
    """What it was; None = nothing."""
    now: Any
    """What it is."""


@dataclass(frozen=True, slots=True)
class Replayed:
    """What a replay came to."""

    then: Answer
    """The row of the table."""
    now: Answer
    """What the version says now."""
    differences: tuple[Difference, ...]
    """In what the two differ; empty = they are the same."""
    causes: tuple[Difference, ...]
    """What else is not as it was, whether the answers differ or not."""
    notes: tuple[str, ...]
    """What is to be known of it, in words."""


@dataclass(frozen=True, slots=True)
class Row:
    """The row that is replayed."""

    image_id: str
    """Sha256 of the image's bytes."""
    answer: Answer
    """What it says."""
    notes: tuple[str, ...]
    """Which version it is, where that is not the one that was named."""


def find(client: MlflowClient, lake: str, model: str, image: str) -> Row:
    """The row of an image by a version.

    A pointer means the version that its readers see, by the ledger; one that nobody follows means
    the version behind it. Of a version by number that the registry has no more, or has as another
    model without such a row, the row that the tables have is taken. `models:/m-...` is MLflow's URI
    of one model, whatever its number.

    Args:
        client: The registry.
        lake: As `lakes.locate` gives it.
        model: A model URI.
        image: An image_id, or a path as the tables have it: what lies there now.

    Raises:
        UserError: No such image, version or row; the message says what there is.
    """
    found = history.image(lake, image, None)
    rows = history.answers(lake, found.image_id)
    wanted, reason = _wanted(client, lake, model, rows)
    own = [row for row in rows if row.version == wanted]
    if own:
        return Row(found.image_id, own[-1], ())
    twins = [row for row in rows if row.version.uri == model]
    if twins:
        reason = reason or f"{model} is another model now ({wanted.model_id})"
        made_by = twins[-1].version
        if made_by.loaded_from == made_by.uri:
            raise UserError(f"{reason}, and the one that made the row cannot be loaded any more")
        note = f"{reason}; the row is of {made_by.model_id}, which is replayed"
        return Row(found.image_id, twins[-1], (note,))
    raise UserError(_no_row(lake, image, found.image_id, wanted, rows))


def _wanted(client: MlflowClient, lake: str, model: str, rows: list[Answer]) -> tuple[Version, str]:
    """The version that is meant, without a pointer; and why only the tables know it, if so."""
    by_id = [row.version for row in rows if model == f"models:/{row.version.model_id}"]
    serving = ledger.read(lake).serving(model)
    if by_id:
        return by_id[-1], ""
    if serving:
        return replace(serving.version, pointer=None), ""
    try:
        return replace(resolve(client, model), pointer=None), ""
    except UserError as error:
        told = [row.version for row in rows if row.version.uri == model]
        if not told:
            raise
        return replace(told[-1], model_id=""), f"the registry has no {model} ({error})"


def _no_row(lake: str, words: str, image_id: str, wanted: Version, rows: list[Answer]) -> str:
    by = ", ".join(f"{row.version.uri} ({row.version.model_id})" for row in rows) or "none"
    before = {note.image_id for note in history.notes(lake, words)} - {image_id}
    older = sorted(
        other
        for other in before
        if any(row.version.uri == wanted.uri for row in history.answers(lake, other))
    )
    hint = f"; of older contents of this path it has {', '.join(older)}" if older else ""
    return (
        f"{wanted.uri} has no row of image {image_id} (versions that have: {by}){hint}. "
        f"Run: mlflow run . -e score -P model={wanted.uri}"
    )


def replay(client: MlflowClient, lake: str, row: Row, *, tolerance: float = TOLERANCE) -> Replayed:
    """Asks the version of a row again, in this process, and compares.

    One framework a process: a process replays rows of versions of one framework only.

    Args:
        client: The tracking server, whose run of the row tells what was so then.
        lake: As `lakes.locate` gives it.
        row: As `find` gives it.
        tolerance: Scores that differ by this or less are the same.

    Raises:
        UserError: The bytes, or the version's files, cannot be had now; or it cannot be loaded.
    """
    then = row.answer
    version = then.version
    held, error = of_image(lake, row.image_id)
    if held is None and then.error != error:
        raise UserError(
            f"The bytes of image {row.image_id} cannot be had now ({error}): the table holds none, "
            "and no file that held them does"
        )
    files = version_files.read(version)
    if held is None:
        now, failed = _answer(then.version, error=error), ""
    else:
        now, failed = ask(version, files, held)
    found = tuple(differences(then, now, tolerance))
    tags = _tags(client, then)
    causes = () if tags is None else tuple(_causes(tags, files))
    notes = [*row.notes, *([failed] if failed else [])]
    if tags is None or DIGEST not in tags:
        gone = "is gone" if tags is None else "does not tell of it (killed, or of an older release)"
        notes.append(f"The run {then.run_id!r} of the row {gone}, {UNKNOWN}")
    elif found and not causes:
        notes.append(
            "Files and packages are as they were. What is left is the machine, its devices, and "
            f"which images stood in one batch (scored in {tags.get(SESSION, 'an unknown session')})"
        )
    return Replayed(then, now, found, causes, tuple(notes))


def ask(version: Version, files: Files, held: bytes) -> tuple[Answer, str]:
    """What a version answers to one image here, as scoring would write it; and what it raised.

    Raises:
        UserError: It cannot be loaded.
    """
    try:
        model = mlflow.pyfunc.load_model(version.loaded_from)
    except Exception as error:  # whatever its framework raises
        unmet = ", ".join(files.unmet) or "none"
        raise UserError(
            f"{version.uri} cannot be loaded here ({_in_a_line(error)}). "
            f"Packages that are not those it was made with: {unmet}"
        ) from error
    try:
        told = model.predict(pd.DataFrame({"content": [held]}))[list(COLUMNS)]
        if len(told) != 1:
            raise ValueError(f"{len(told)} answers to one image")
    except Exception as error:  # noqa: BLE001 - whatever a version raises is `model_failed`
        return _answer(version, error=MODEL_FAILED), f"It raised {_in_a_line(error)}"
    row = told.to_dict("records")[0]
    error_code = row["error"] or _fault(row)
    if error_code:
        return _answer(version, error=error_code), ""
    top = tuple(zip(row["top_labels"], map(float, row["top_scores"]), strict=True))
    return _answer(version, label=row["label"], score=float(row["score"]), top=top), ""


def differences(then: Answer, now: Answer, tolerance: float) -> Iterator[Difference]:
    """In what two answers differ; labels that change places with equal scores do not.

    But for the first label, which is what readers see.
    """
    if then.label != now.label:
        yield Difference("label", then.label, now.label)
    if then.error != now.error:
        yield Difference("error", then.error, now.error)
    if not _near(then.score, now.score, tolerance):
        yield Difference("score", then.score, now.score)
    first, second = dict(then.top), dict(now.top)
    if list(first) != list(second) and not _tied(first, second, tolerance):
        yield Difference("top_labels", list(first), list(second))
    ranks = zip(first.values(), second.values(), strict=False)
    if len(first) != len(second) or not all(_near(*pair, tolerance) for pair in ranks):
        yield Difference("top_scores", list(first.values()), list(second.values()))


def _tied(first: dict[str, float], second: dict[str, float], tolerance: float) -> bool:
    """Whether two rankings of labels differ in places of equal scores only.

    A label that one lacks is held against its last score, below which it was cut.
    """
    if not first or not second:
        return False
    lowest = min(first.values()), min(second.values())
    pairs = [(first.get(one, lowest[0]), second.get(one, lowest[1])) for one in first | second]
    return all(_near(*pair, tolerance) for pair in pairs)


def _near(then: float | None, now: float | None, tolerance: float) -> bool:
    if then is None or now is None:
        return then is now
    return abs(then - now) <= tolerance


def _fault(row: Mapping[str, Any]) -> str:
    """The error code of an answer that is none, as `prediction_rows.of` gives it; else ""."""
    scores = [-1.0 if score is None else float(score) for score in row["top_scores"]]
    score = float("nan") if row["score"] is None else float(row["score"])
    if not all(map(math.isfinite, [score, sum(scores), *scores])):
        return NOT_FINITE
    good = row["label"] and 0 <= score <= 1 and scores and min(scores) >= 0
    good = good and sum(scores) <= 1 + SUM_TOLERANCE and len(row["top_labels"]) == len(scores)
    return "" if good else BAD_ANSWER


def _answer(
    version: Version,
    *,
    label: str | None = None,
    score: float | None = None,
    top: tuple[tuple[str, float], ...] = (),
    error: str | None = None,
) -> Answer:
    return Answer(version, label, score, top, error, "", datetime.now(UTC))


def _tags(client: MlflowClient, then: Answer) -> Mapping[str, str] | None:
    """What the run of a row tells of its version; None when there is no such run any more."""
    try:
        tags: Mapping[str, str] = client.get_run(then.run_id).data.tags
    except MlflowException:
        return None
    return tags if tags.get("mlproject.model_id") == then.version.model_id else {}


def _causes(tags: Mapping[str, str], files: Files) -> Iterator[Difference]:
    """In what the version and its environment are not as a run tells."""
    for tag, what, now in (
        (DIGEST, "files", files.digest),
        ("mlproject.preprocessing", "preprocessing", files.preprocessing),
    ):
        if tag in tags and tags[tag] != now:
            yield Difference(what, tags[tag], now)
    if "mlproject.packages" in tags:
        words = tags["mlproject.packages"].split()
        then = {name: pin for name, _, pin in (word.partition("==") for word in words)}
        here = {name: found for name, _, found in files.packages}
        for name in sorted(then | here):
            if then.get(name) != here.get(name):
                yield Difference(f"package {name}", then.get(name), here.get(name))


def _in_a_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
