"""What a version answers to the golden images, and the rules that every version's answers keep."""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import mlflow
import pandas as pd

from mlproject import inference
from mlproject.errors import first_line
from mlproject.integrations.local_files import output_to
from mlproject.versions import reference_images
from mlproject.versions.reference_images import GoldenImage

# What batching may change: kernels differ with the batch size, in float32.
BATCH_TOLERANCE = 1e-4
SUM_TOLERANCE = 1e-3  # of probabilities, above 1: also of networks that compute in float16


class Answered(NamedTuple):
    """What a version says to one golden image.

    Attributes:
        image: The image.
        row: The answer among the other images.
        alone: The answer without them.
    """

    image: GoldenImage
    row: Mapping[str, Any]
    alone: Mapping[str, Any]


def answers(uri: str) -> list[Answered]:
    """A version's answers to the golden images, asked in this process.

    Raises:
        Exception: Whatever the version raises, or ValueError when it answers other rows.
    """
    images = reference_images.reference_images()
    contents = [image.content for image in images]
    with tempfile.TemporaryDirectory() as folder:
        model = mlflow.pyfunc.load_model(uri, dst_path=folder)
        rows = _rows(model, contents)
        alone = [_rows(model, [content])[0] for content in contents]
    return [Answered(*found) for found in zip(images, rows, alone, strict=True)]


def fault(uri: str) -> str:
    """What keeps a version, whoever made it, from being scored with, in words; "" = nothing.

    It is loaded here, and imports its framework: to be called in `frameworks.process`. Which
    images it can read, and its codes for those that it cannot, are its own affair; that it answers
    some of the golden ones, and gives no label to broken ones, is not.
    """
    signature = mlflow.models.get_model_info(uri).signature
    if signature is None or signature.inputs.input_names() != ["content"]:
        return "its signature is not one column `content`"
    try:
        # What it prints, and what MLflow advises who made it, is nothing for who points at it.
        with tempfile.TemporaryDirectory() as folder, output_to(Path(folder) / "log.txt"):
            found = answers(uri)
        for answered in found:
            wrong = _fault(answered) or differs(answered.row, answered.alone)
            if wrong:
                return f"{answered.image.name}: {wrong}"
    except Exception as error:  # noqa: BLE001 - whatever a version raises, or answers
        return f"it does not run: {first_line(error)}"
    if all(answered.row["error"] for answered in found):
        return f"an error to each of the {len(found)} images"
    return ""


def differs(row: Mapping[str, Any], alone: Mapping[str, Any]) -> str:
    """Words when an image alone is answered otherwise than among others; ties may swap labels."""
    pairs = zip(row["top_scores"], alone["top_scores"], strict=False)
    same = row["error"] == alone["error"] and all(
        abs(one - other) <= BATCH_TOLERANCE for one, other in pairs
    )
    return "" if same else "the answer depends on the other images of the batch"


def _rows(model: Any, contents: Sequence[bytes]) -> list[Mapping[str, Any]]:
    found = model.predict(pd.DataFrame({"content": contents}))
    absent = set(inference.COLUMNS) - set(found.columns)
    if absent:
        raise ValueError(f"the answers have no {', '.join(sorted(absent))}")
    if len(found) != len(contents):
        raise ValueError(f"{len(found)} answers to {len(contents)} images")
    rows: list[Mapping[str, Any]] = found.to_dict("records")
    return rows


def _fault(answered: Answered) -> str:
    """What would make a row of `predictions` of this answer that is none, or a made-up one."""
    row, scores = answered.row, list(answered.row["top_scores"])
    if row["error"]:
        return ""
    rules = {
        "a label instead of an error": not answered.image.error,
        "no label": isinstance(row["label"], str) and row["label"] != "",
        "a score is no probability": all(0 <= value <= 1 for value in (row["score"], *scores)),
        "the scores sum to more than 1": sum(scores) <= 1 + SUM_TOLERANCE,
        "other top labels than top scores": len(row["top_labels"]) == len(scores),
    }
    return next((fault for fault, kept in rules.items() if not kept), "")
