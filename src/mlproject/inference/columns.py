"""The columns that a version returns, from probabilities: one row for each image, no nulls."""

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from typing import Any

import numpy as np

from .errors import NOT_FINITE
from .pipeline import decoded_batches

# The columns that a version returns, in this order. A row with an error has "", nan, [], [] and a
# code of `ERRORS`; other rows have the error "". Never None: MLflow turns nulls in struct results
# into the text "nan".
COLUMNS = ("label", "score", "top_labels", "top_scores", "error")


def predictions(
    contents: Sequence[bytes | None],
    forward: Callable[[np.ndarray], np.ndarray],
    labels: Sequence[str],
    config: Mapping[str, Any],
    *,
    threads: int = 1,
    device_batch: int = 0,
) -> dict[str, list[Any]]:
    """The predictions for N encoded images: `COLUMNS` of N values each, in the order of the images.

    Args:
        contents: N encoded images; None = no bytes.
        forward: uint8 images (M, crop, crop, 3) -> probabilities (M, K). Never called with M = 0.
        labels: K labels.
        config: The config of `decode`, `batch_size` (images of a batch on a CPU) and `top_k`.
        threads: Threads that decode.
        device_batch: Images of a batch on an accelerator, which computes one while the next one is
            decoded; 0 = CPU, which does both in turn.
    """
    columns: dict[str, list[Any]] = {name: [] for name in COLUMNS}
    size, ahead = device_batch or config["batch_size"], device_batch > 0
    batches = decoded_batches(contents, config, size, threads=threads, ahead=ahead)
    with closing(batches):
        for images, errors in batches:
            probabilities = forward(images) if len(images) else np.empty((0, len(labels)))
            found = prediction_columns(probabilities, errors, labels, config["top_k"])
            for name in COLUMNS:
                columns[name] += found[name]
    return columns


def prediction_columns(
    probabilities: np.ndarray, errors: Sequence[str], labels: Sequence[str], top_k: int
) -> dict[str, list[Any]]:
    """The predictions of N images, from probabilities: `COLUMNS` of N values each.

    Args:
        probabilities: float array (M, K), 0..1: one row for each "" in `errors`, in order. A row
            that is not finite gives the error `not_finite`.
        errors: N codes; "" = the image has probabilities.
        labels: K labels. Of equal probabilities the first label wins.
        top_k: Length of `top_labels`; K when K is less.
    """
    # Softmax in float32 can exceed 1 by a rounding error.
    bounded = np.clip(np.asarray(probabilities, np.float64), 0.0, 1.0)
    finite = np.isfinite(probabilities).all(axis=1)
    order = np.argsort(-bounded, axis=1, kind="stable")[:, :top_k]  # (M, K) -> (M, top_k)
    images = iter(zip(bounded, finite, order, strict=True))
    rows = [_error_row(error) if error else _row(*next(images), labels) for error in errors]
    return {name: [row[index] for row in rows] for index, name in enumerate(COLUMNS)}


def _row(
    probabilities: np.ndarray, finite: bool, order: np.ndarray, labels: Sequence[str]
) -> tuple[str, float, list[str], list[float], str]:
    if not finite:
        return _error_row(NOT_FINITE)
    top_labels = [labels[index] for index in order]
    top_scores = [float(probabilities[index]) for index in order]
    return top_labels[0], top_scores[0], top_labels, top_scores, ""


def _error_row(error: str) -> tuple[str, float, list[str], list[float], str]:
    return "", math.nan, [], [], error
