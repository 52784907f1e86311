"""Replay of one row of `predictions`: the same image and version, in this process; no Spark.

A difference is reported with its possible causes: the version's files, preprocessing, packages.
"""

import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import mlflow
import pandas as pd
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from mlproject.errors import UserError, require_at_least
from mlproject.images.stored_images import read_image
from mlproject.inference import COLUMNS
from mlproject.inference.errors import MODEL_FAILED
from mlproject.integrations import mlflow_tracking
from mlproject.integrations.outages import raise_fault_of_machine
from mlproject.lake import location
from mlproject.replays.differences import Difference, changed_environment, differences
from mlproject.rollout import history, ledger
from mlproject.rollout.history import Prediction
from mlproject.scoring import workers
from mlproject.storage.local_files import output_to
from mlproject.versions import version_files
from mlproject.versions.reference_results import prediction_fault
from mlproject.versions.registry import resolve
from mlproject.versions.version import Version
from mlproject.versions.version_files import DIGEST, Files

# Of scores: kernels differ in the last bits with batch size and machine. Of 120 photos, scored by
# two workers and replayed one by one, none differed by more than 2e-6 (Keras and torch, on a CPU).
TOLERANCE = 1e-5
SESSION = "mlproject.session"  # the tag of a run that names the Spark session


@dataclass(frozen=True, slots=True)
class ReplayResult:
    """A prediction then and now."""

    image_id: str
    """Sha256 of the image's bytes."""
    then: Prediction
    """The row of the table."""
    now: Prediction
    """The prediction now."""
    differences: tuple[Difference, ...]
    """Columns that differ; empty = the predictions are the same."""
    causes: tuple[Difference, ...]
    """What else is not the same, whether the predictions differ or not."""
    notes: tuple[str, ...]
    """Sentences that explain the result."""


def replay(
    model: str, image: str, lake: str = "lake", *, tolerance: float = TOLERANCE
) -> ReplayResult:
    """Predicts one image again with the version that made a row, and compares; writes nothing.

    A process replays versions of one framework only.

    Args:
        model: Model URI: a version, or an alias or stage, which means its serving version.
        image: Path as in the tables, or image_id.
        lake: Folder or URI of the tables.
        tolerance: Scores that differ by this or less are the same.

    Raises:
        UserError: No such image, version or row; or bytes or files cannot be read now.
    """
    require_at_least(0, tolerance=tolerance)
    client = mlflow_tracking.connect()
    lake = location.locate(lake)
    found = find_row(client, lake, model, image)
    os.environ.update(workers.ENVIRONMENT)  # before a framework is imported, as in workers
    # What frameworks print while they are imported is no output of ours.
    with tempfile.TemporaryDirectory() as folder, output_to(Path(folder) / "log.txt"):
        return replay_row(client, lake, *found, tolerance)


def find_row(
    client: MlflowClient, lake: str, model: str, image: str
) -> tuple[str, Prediction, list[str]]:
    """The image_id and the row of an image by a version, and a note if another model made the row.

    An alias means its serving version; one that was never rolled out, the version that it names.
    If the registry has no version of a number any more, or another model without such a row, the
    row in the table is taken. `models:/m-...` is MLflow's URI of one model, whatever its number.
    A path means its newest content.

    Raises:
        UserError: No such image, version or row; the message lists those that exist.
    """
    image_id = history.find_image(lake, image, None).image_id
    rows = history.image_predictions(lake, image_id)
    by_id = [row for row in rows if model == f"models:/{row.version.model_id}"]
    if by_id:
        return image_id, by_id[-1], []
    twins = [row for row in rows if row.version.uri == model]
    serving = ledger.read(lake).serving(model)
    try:
        named = serving.version if serving else resolve(client, model)
        wanted = replace(named, pointer=None)
        reason = f"{model} is another model now ({wanted.model_id})"
    except UserError as error:
        if not twins:
            raise
        wanted = replace(twins[-1].version, model_id="")
        reason = f"the registry has no {model} ({error})"
    own = [row for row in rows if row.version == wanted]
    if own:
        return image_id, own[-1], []
    if twins:
        made_by = twins[-1].version
        if not made_by.is_logged:
            raise UserError(f"{reason}, and the model that made the row is no longer there")
        note = f"{reason}; {made_by.model_id}, which made the row, is replayed"
        return image_id, twins[-1], [note]
    raise UserError(_no_row(lake, image, image_id, wanted, rows))


def replay_row(
    client: MlflowClient,
    lake: str,
    image_id: str,
    then: Prediction,
    notes: list[str],
    tolerance: float,
) -> ReplayResult:
    """Predicts the image of a row again, in this process, and compares.

    Raises:
        UserError: The bytes or the version's files cannot be read now, or it cannot be loaded.
    """
    content, error = read_image(lake, image_id)
    if content is None and then.error != error:
        raise UserError(
            f"The bytes of image {image_id} cannot be read now ({error}): they are neither "
            "in the table nor in a file"
        )
    with tempfile.TemporaryDirectory() as folder:
        files = version_files.download(then.version, Path(folder))
        if content is None:
            now, raised = _failed(then.version, error), ""
        else:
            now, raised = _predict(then.version, folder, files, content)
    notes = [*notes, raised] if raised else [*notes]
    found = tuple(differences(then, now, tolerance))
    tags = _tags(client, then)
    causes = () if tags is None else tuple(changed_environment(tags, files))
    if tags is None or DIGEST not in tags:
        gone = (
            "was deleted" if tags is None else "does not name them (killed, or of an older release)"
        )
        notes.append(
            f"The version's files and packages then are not known: run {then.run_id!r} {gone}"
        )
    elif found and not causes:
        notes.append(
            "Files and packages are the same. What remains is the machine, its devices, and which "
            f"images were in one batch (scored in {tags.get(SESSION, 'an unknown session')})"
        )
    return ReplayResult(image_id, then, now, found, causes, tuple(notes))


def _no_row(lake: str, image: str, image_id: str, wanted: Version, rows: list[Prediction]) -> str:
    by = ", ".join(f"{row.version.uri} ({row.version.model_id})" for row in rows) or "none"
    before = {state.image_id for state in history.image_states(lake, image)} - {image_id}
    older = sorted(
        other
        for other in before
        if any(row.version.uri == wanted.uri for row in history.image_predictions(lake, other))
    )
    hint = f"; it has rows of older contents of this path: {', '.join(older)}" if older else ""
    return (
        f"{wanted.uri} has no row of image {image_id} (versions that have one: {by}){hint}. "
        f"Run: mlflow run . -e score -P model={wanted.uri}"
    )


def _predict(version: Version, folder: str, files: Files, content: bytes) -> tuple[Prediction, str]:
    """The prediction for one image here, as scoring would write it; and what the version raised.

    Raises:
        UserError: It cannot be loaded.
        MachineError: The machine fails: its memory, a device, files or the network.
    """
    try:
        model = mlflow.pyfunc.load_model(folder)
    except Exception as error:  # whatever its framework raises
        raise_fault_of_machine(error, f"{version.uri} was not loaded")
        unmet = ", ".join(files.unmet) or "none"
        raise UserError(
            f"{version.uri} cannot be loaded here ({_in_a_line(error)}). "
            f"Packages that are not those it was made with: {unmet}"
        ) from error
    try:
        predicted = model.predict(pd.DataFrame({"content": [content]}))[list(COLUMNS)]
        if len(predicted) != 1:
            raise ValueError(f"{len(predicted)} predictions for one image")
    except Exception as error:  # noqa: BLE001 - whatever a version raises is `model_failed`
        raise_fault_of_machine(error, "The image was not predicted")
        return _failed(version, MODEL_FAILED), f"The version raised {_in_a_line(error)}"
    row = predicted.to_dict("records")[0]
    invalid = prediction_fault(row)
    error_code = row["error"] or (invalid.code if invalid else "")
    if error_code:
        return _failed(version, error_code), ""
    top = tuple(zip(row["top_labels"], map(float, row["top_scores"]), strict=True))
    score, scored_at = float(row["score"]), datetime.now(UTC)
    return Prediction(version, row["label"], score, top, None, "", scored_at), ""


def _failed(version: Version, error: str | None) -> Prediction:
    return Prediction(version, None, None, (), error, "", datetime.now(UTC))


def _tags(client: MlflowClient, then: Prediction) -> Mapping[str, str] | None:
    """The tags of the run that made a row, empty for another version; None = it was deleted."""
    try:
        tags: Mapping[str, str] = client.get_run(then.run_id).data.tags
    except MlflowException:
        return None
    return tags if tags.get("mlproject.model_id") == then.version.model_id else {}


def _in_a_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
