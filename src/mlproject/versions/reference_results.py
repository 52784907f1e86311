"""Predictions of a version for the reference images, and the rules for all predictions."""

import math
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import mlflow
import pandas as pd

from mlproject import inference
from mlproject.errors import first_line
from mlproject.inference.errors import BAD_ANSWER, NOT_FINITE
from mlproject.integrations.outages import raise_fault_of_machine
from mlproject.storage.local_files import output_to
from mlproject.versions import reference_images
from mlproject.versions.reference_images import ReferenceImage

# Of a score: in float32, kernels differ with the batch size.
BATCH_TOLERANCE = 1e-4
# With an accelerator, where versions may compute in float16 (not measured): a unit in the last
# place of a logit between 8 and 16 is 2**-7, and changes a score by a quarter of it at most.
DEVICE_BATCH_TOLERANCE = 1e-2
SUM_TOLERANCE = 1e-3  # of the scores above 1: for networks that compute in float16, too


class ReferenceResult(NamedTuple):
    """The predictions, by `inference.COLUMNS`: in one batch with the other images, and alone."""

    image: ReferenceImage
    batched: Mapping[str, Any]
    alone: Mapping[str, Any]


class Fault(NamedTuple):
    """The error code of an invalid prediction, and the rule that it breaks, as text."""

    code: str
    reason: str


def predict_reference_images(uri: str) -> list[ReferenceResult]:
    """The predictions of a version for the reference images, computed in this process.

    Raises:
        Exception: Whatever the version raises, or ValueError when it returns other rows or columns.
    """
    images = reference_images.reference_images()
    contents = [image.content for image in images]
    with tempfile.TemporaryDirectory() as folder:
        model = mlflow.pyfunc.load_model(uri, dst_path=folder)
        batched = _predict(model, contents)
        alone = [_predict(model, [content])[0] for content in contents]
    return [ReferenceResult(*found) for found in zip(images, batched, alone, strict=True)]


def fault(uri: str) -> str:
    """Why a version, whoever made it, cannot be used for scoring, as text; "" = it can.

    It is loaded in this process and imports its framework: call this in `framework_process`. A
    version may read fewer formats and use error codes of its own; but it has to predict a label
    for some reference image, and no label for broken ones.

    Raises:
        MachineError: The machine failed: its memory, a device, files or the network.
    """
    signature = mlflow.models.get_model_info(uri).signature
    if signature is None or signature.inputs.input_names() != ["content"]:
        return "its signature is not one column `content`"
    try:
        # Its output, and MLflow's advice to its author, do not concern the user of a command.
        with tempfile.TemporaryDirectory() as folder, output_to(Path(folder) / "log.txt"):
            results = predict_reference_images(uri)
        for result in results:
            reason = _result_fault(result)
            if reason:
                return f"{result.image.name}: {reason}"
    except Exception as error:  # noqa: BLE001 - whatever a version raises or returns
        raise_fault_of_machine(error, "The reference images were not predicted")
        return f"it does not run: {first_line(error)}"
    if all(result.batched["error"] for result in results):
        return f"an error for each of the {len(results)} images"
    return ""


def prediction_fault(row: Mapping[str, Any]) -> Fault | None:
    """The rule that a prediction without an error breaks; None = it is valid.

    The same rules as `scoring` applies in Spark. A null score was NaN before MLflow converted it.
    """
    score, *scores = (
        math.nan if value is None else float(value)
        for value in (row["score"], *_list(row["top_scores"]))
    )
    if not all(map(math.isfinite, (score, sum(scores), *scores))):
        return Fault(NOT_FINITE, "a score is not a finite number")
    rules = {
        "no label": isinstance(row["label"], str) and row["label"] != "",
        "no top scores": bool(scores),
        "a score is not a probability": 0 <= score <= 1 and all(value >= 0 for value in scores),
        "the scores sum to more than 1": sum(scores) <= 1 + SUM_TOLERANCE,
        "not as many top labels as top scores": len(_list(row["top_labels"])) == len(scores),
    }
    broken = next((rule for rule, kept in rules.items() if not kept), "")
    return Fault(BAD_ANSWER, broken) if broken else None


def batch_fault(result: ReferenceResult) -> str:
    """Why a prediction depends on its batch, as text; labels with equal scores may swap."""
    batched, alone = result.batched, result.alone
    tolerance = DEVICE_BATCH_TOLERANCE if inference.cuda_devices() else BATCH_TOLERANCE
    pairs = zip(batched["top_scores"], alone["top_scores"], strict=False)
    same = batched["error"] == alone["error"] and all(
        abs(one - other) <= tolerance for one, other in pairs
    )
    return "" if same else "the prediction depends on the other images of the batch"


def _predict(model: Any, contents: Sequence[bytes]) -> list[Mapping[str, Any]]:
    found = model.predict(pd.DataFrame({"content": contents}))
    absent = set(inference.COLUMNS) - set(found.columns)
    if absent:
        raise ValueError(f"the predictions have no column {', '.join(sorted(absent))}")
    if len(found) != len(contents):
        raise ValueError(f"{len(found)} predictions for {len(contents)} images")
    rows: list[Mapping[str, Any]] = found.to_dict("records")
    return rows


def _result_fault(result: ReferenceResult) -> str:
    if not result.batched["error"]:
        if result.image.error:
            return "a label instead of an error"
        broken = prediction_fault(result.batched)
        if broken:
            return broken.reason
    return batch_fault(result)


def _list(values: Any) -> list[Any]:
    return [] if values is None else list(values)
