"""Figures of a training: the confusion matrix and the errors with the highest scores."""

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from mlproject.training.learning import Floats, Ints

NUMBERS = 20  # labels up to which each cell's count is written
NAMES = 60  # labels up to which their names are written
LONGEST = 20  # characters of a label in a figure
COLUMNS = 5  # images side by side on the sheet


def confusion(truth: Ints, predicted: Ints, classes: int) -> Ints:
    """(K, K) counts: row = true class, column = predicted class."""
    counts = np.zeros((classes, classes), np.int64)
    np.add.at(counts, (truth, predicted), 1)
    return counts


def confusion_figure(counts: Ints, labels: tuple[str, ...]) -> Figure:
    """The confusion matrix as shares of each true label, with the counts where they fit."""
    classes = len(labels)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = float(np.clip(2.5 + 0.45 * classes, 5, 16))  # inches
    figure = Figure(figsize=(side, side), layout="constrained")
    axes = figure.subplots()
    picture = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(picture, ax=axes, shrink=0.7, label="share of the true label")
    accuracy = np.trace(counts) / max(counts.sum(), 1)
    axes.set_title(f"{counts.sum()} held-out images, accuracy {accuracy:.1%}")
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    if classes <= NAMES:
        names = [_short(label) for label in labels]
        axes.set_xticks(range(classes), names, rotation=45, ha="right", rotation_mode="anchor")
        axes.set_yticks(range(classes), names)
    if classes <= NUMBERS:
        for (row, column), count in np.ndenumerate(counts):
            colour = "white" if shares[row, column] > 0.5 else "black"
            axes.text(column, row, str(count) if count else "", ha="center", va="center", c=colour)
    return figure


def worst_errors(probabilities: Floats, truth: Ints, most: int) -> Ints:
    """Indices of the incorrect predictions, the highest scores first, `most` at most."""
    predicted = probabilities.argmax(axis=1)
    wrong = np.flatnonzero(predicted != truth)
    scores = probabilities[wrong, predicted[wrong]]
    return np.asarray(wrong[np.argsort(-scores, kind="stable")][:most])


def sheet(images: list[NDArray[np.uint8]], captions: list[str]) -> Figure:
    """Images (H, W, 3) and their captions on one sheet; a sentence when there are none."""
    rows = max(1, -(-len(images) // COLUMNS))
    figure = Figure(figsize=(2.4 * COLUMNS, 2.9 * rows), layout="constrained")
    grid = figure.subplots(rows, COLUMNS, squeeze=False)
    for axes in grid.flat:
        axes.axis("off")
    for axes, image, caption in zip(grid.flat, images, captions, strict=False):
        axes.imshow(image)
        axes.set_title(caption, fontsize=8)
    if not images:
        figure.text(
            0.5, 0.5, "All predictions for held-out images are correct.", ha="center", fontsize=14
        )
    return figure


def caption(true: str, predicted: str, score: float) -> str:
    """The caption of an error, in two lines."""
    return f"true: {_short(true)}\npredicted: {_short(predicted)} ({score:.2f})"


def file_name(rank: int, true: str, predicted: str, score: float) -> str:
    """The file name of an error, without characters that some file systems refuse."""
    name = f"{rank:02d}_true-{_short(true)}_said-{_short(predicted)}_{score:.2f}"
    return "".join(c if c.isalnum() or c in "-_." else "-" for c in name) + ".png"


def _short(label: str) -> str:
    return label if len(label) <= LONGEST else label[: LONGEST - 1] + "…"
