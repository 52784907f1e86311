"""What both trainers share: examples, settings, the plan of steps, scores, the softmax head."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

WARM_UP = 0.2  # share of the steps in which the rate rises, as in one-cycle schedules
WEIGHT_DECAY = 1e-2  # decoupled, a step, times the rate. Source: torch.optim.AdamW's default
FINE_TUNE_RATE = 1e-4  # peak rate of unfrozen blocks: a tenth of Adam's default
FORWARD = 64  # images a pass without gradients: about 0.5 GB of activations at 224 px
SETTLED = 4096  # images: batch-norm statistics change no more with more of them
GLANCE = 128  # images: enough statistics for a point of a curve
ADAM = (0.9, 0.999, 1e-7)  # decay of mean, of square, epsilon. Source: arXiv 1412.6980; Keras


@dataclass(frozen=True, slots=True)
class Examples:
    """Labelled images, decoded as in serving, and their split."""

    pixels_file: Path
    """The decoded images, one after the other; they are not pickled with the rest."""
    side: int
    """Width and height of each image, in px."""
    targets: Ints
    """(N,) class of each image: its place in `labels`."""
    image_ids: tuple[str, ...]
    """N ids of the `images` table, each once."""
    labels: tuple[str, ...]
    """K labels in alphabetical order."""
    training: Ints
    """Rows to learn from; every label is among them."""
    held_out: Ints
    """Rows to measure on only; every label is among them."""

    @property
    def pixels(self) -> NDArray[np.uint8]:
        """(N, S, S, 3) RGB; a memory map, so that only what is used is in memory."""
        shape = (len(self.targets), self.side, self.side, 3)
        return np.memmap(self.pixels_file, np.uint8, "r", shape=shape)

    @property
    def held_out_targets(self) -> Ints:
        """Class of each held-out image, in the order of `held_out`."""
        return self.targets[self.held_out]


@dataclass(frozen=True, slots=True)
class Settings:
    """How to train."""

    epochs: int
    """Passes over the training images: of the head, or of the whole network from scratch."""
    batch_size: int
    """Images a step."""
    learning_rate: float
    """Peak step size of Adam."""
    image_size: int
    """Side of the square that the network sees, in px."""
    fine_tune_blocks: int = 0
    """How many of the last inverted-residual blocks are trained as well, 0..17."""
    fine_tune_epochs: int = 4
    """Passes over the training images with these blocks unfrozen."""
    seed: int = 0
    """Decides first weights, order and flips; the split does not depend on it."""


@dataclass(frozen=True, slots=True)
class Scores:
    """How well a network does on some images."""

    loss: float
    """Mean cross-entropy, in nats."""
    accuracy: float
    """Share of the images whose most likely label is theirs, 0..1."""


# Called after each epoch: its number from 1, the scores on training and on held-out images.
OnEpoch = Callable[[int, Scores, Scores], None]


def scores(probabilities: Floats, targets: Ints) -> Scores:
    """How well probabilities (N, K) tell the targets (N,)."""
    likely = probabilities[np.arange(len(targets)), targets]
    loss = -np.log(np.maximum(likely, np.finfo(np.float32).tiny)).mean()
    return Scores(float(loss), float((probabilities.argmax(axis=1) == targets).mean()))


class Tally:
    """Adds up the scores of an epoch's batches."""

    def __init__(self) -> None:
        self._loss, self._right, self._images = 0.0, 0, 0

    def add(self, loss: float, right: int, images: int) -> None:
        """Counts a batch: its mean loss, how many images were told right, and of how many."""
        self._loss += loss * images
        self._right += right
        self._images += images

    def scores(self) -> Scores:
        """The scores over all images so far."""
        return Scores(self._loss / self._images, self._right / self._images)


def plan(
    rows: Ints, epochs: tuple[int, int], size: int, peak: float, rng: np.random.Generator
) -> Iterator[tuple[int, list[tuple[Ints, float]]]]:
    """The epochs to come: (its number from 1, its steps); a step: (rows of a batch, rate).

    An epoch's batches are of equal size, give or take one, so that none is a left-over of one
    image, where batch norm has nothing to normalise by.

    Args:
        rows: What to learn from, each once an epoch, in random order.
        epochs: Epochs done before, and done after.
        size: Images a batch, at most.
        peak: Highest learning rate, see `rate`.
        rng: Decides the order.
    """
    done, last = epochs
    per_epoch = math.ceil(len(rows) / size)
    steps = per_epoch * (last - done)
    for epoch in range(done + 1, last + 1):
        batches = np.array_split(rng.permutation(rows), per_epoch)
        first = (epoch - done - 1) * per_epoch
        yield epoch, [(batch, rate(first + i, steps, peak)) for i, batch in enumerate(batches)]


def in_turn(rows: Ints) -> Iterator[Ints]:
    """The rows in their order, `FORWARD` at a time."""
    return (rows[start : start + FORWARD] for start in range(0, len(rows), FORWARD))


def sample(rows: Ints, *, last: bool) -> list[Ints]:
    """Batches to compute batch-norm statistics over: mixed, of equal size, give or take one.

    Args:
        rows: The training images.
        last: Whether it is for the finished network, and not for a point of a curve.
    """
    chosen = np.random.default_rng(0).permutation(rows)[: SETTLED if last else GLANCE]
    return np.array_split(chosen, math.ceil(len(chosen) / FORWARD))


def flipped(pixels: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Images (N, H, W, 3), each turned left to right with a probability of one half."""
    turn = rng.random(len(pixels)) < 0.5
    return np.where(turn[:, None, None, None], pixels[:, :, ::-1], pixels)


def rate(step: int, steps: int, peak: float) -> float:
    """The learning rate of a step (from 0): up in a line, then down along a cosine.

    Source: arXiv 1708.07120 (one cycle); a network from scratch diverges without the rise.
    """
    rise = max(1, round(WARM_UP * steps))
    if step < rise:
        return peak * (step + 1) / rise
    return peak * 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, steps - rise)))


def fit_head(
    features: Floats, examples: Examples, settings: Settings, on_epoch: OnEpoch
) -> tuple[Floats, Floats]:
    """A softmax classifier on frozen features, by AdamW; the same for every framework.

    Args:
        features: (N, F) float32, of all examples.
        examples: Their classes and split.
        settings: `epochs`, `batch_size`, `learning_rate`, `seed`.
        on_epoch: Told the scores after each epoch.

    Returns:
        Kernel (F, K) and bias (K,).
    """
    rng = np.random.default_rng(settings.seed)
    # The last row is the bias.
    head = np.zeros((features.shape[1] + 1, len(examples.labels)), np.float32)
    mean, square = np.zeros_like(head), np.zeros_like(head)
    step = 0
    epochs, peak = (0, settings.epochs), settings.learning_rate
    for epoch, steps in plan(examples.training, epochs, settings.batch_size, peak, rng):
        tally = Tally()
        for rows, step_size in steps:
            step += 1
            inputs = _with_one(features[rows])  # (B, F) -> (B, F + 1)
            probabilities, targets = softmax(inputs @ head), examples.targets[rows]
            found = scores(probabilities, targets)
            tally.add(found.loss, round(found.accuracy * len(rows)), len(rows))
            probabilities[np.arange(len(rows)), targets] -= 1
            gradient = inputs.T @ probabilities / np.float32(len(rows))  # (F + 1, K)
            _adam(head, gradient, mean, square, step_size, step)
        held_out = softmax(_with_one(features[examples.held_out]) @ head)
        on_epoch(epoch, tally.scores(), scores(held_out, examples.held_out_targets))
    return head[:-1], head[-1]


def softmax(logits: Floats) -> Floats:
    """Probabilities (N, K) of logits (N, K)."""
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True), np.float32)


def _with_one(features: Floats) -> Floats:
    return np.concatenate([features, np.ones((len(features), 1), np.float32)], axis=1)


def _adam(
    head: Floats, gradient: Floats, mean: Floats, square: Floats, step_size: float, step: int
) -> None:
    """One step of AdamW, in place; the bias is not decayed."""
    beta, gamma, epsilon = ADAM
    mean += (1 - beta) * (gradient - mean)
    square += (1 - gamma) * (gradient * gradient - square)
    head[:-1] *= 1 - step_size * WEIGHT_DECAY
    direction = (mean / (1 - beta**step)) / (np.sqrt(square / (1 - gamma**step)) + epsilon)
    head -= step_size * direction
