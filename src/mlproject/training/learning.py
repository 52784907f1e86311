"""The parts of training without a framework: examples, settings, steps, scores, softmax head."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
Images = NDArray[np.uint8]  # (N, S, S, 3) RGB

BLOCKS = 17  # inverted residuals of MobileNetV2. Source: arXiv 1801.04381, table 2
WARM_UP = 0.2  # share of the steps with a rising rate. Source: arXiv 1708.07120 (one cycle)
WEIGHT_DECAY = 1e-2  # decoupled, a step, times the rate. Source: torch.optim.AdamW's default
FINE_TUNE_RATE = 1e-4  # peak rate of unfrozen blocks: a tenth of Adam's default
FORWARD_IMAGES = 64  # images of a pass without gradients: about 0.5 GB of activations at 224 px
FINAL_IMAGES = 4096  # for batch-norm statistics, which do not change with more images
EPOCH_IMAGES = 128  # for batch-norm statistics of one point of a curve
ADAM = (0.9, 0.999, 1e-7)  # decay of mean, of square, epsilon. Source: arXiv 1412.6980; Keras


@dataclass(frozen=True, slots=True)
class Examples:
    """Labelled images, decoded as in scoring, and their split."""

    pixels_file: Path
    """The decoded images, one after the other; they are not pickled with the record."""
    side: int
    """Width and height of each image, in px."""
    targets: Ints
    """(N,) class of each image, in the order of their ids: its place in `labels`."""
    labels: tuple[str, ...]
    """K labels in alphabetical order."""
    training: Ints
    """Rows to learn from; every label is among them."""
    held_out: Ints
    """Rows to measure on only; every label is among them."""

    @property
    def pixels(self) -> Images:
        """All images: a memory map, so that only what is used is in memory."""
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
    """Images of a step."""
    learning_rate: float
    """Peak step size of Adam."""
    image_size: int
    """Side of the network's input, pixels."""
    fine_tune_blocks: int = 0
    """Number of last inverted-residual blocks that are trained too, 0..17."""
    fine_tune_epochs: int = 4
    """Passes over the training images with these blocks unfrozen."""
    seed: int = 0
    """Seed of the first weights, the order and the flips; the split does not depend on it."""

    @property
    def last_epoch(self) -> int:
        """All passes over the training images."""
        return self.epochs + (self.fine_tune_epochs if self.fine_tune_blocks else 0)


@dataclass(frozen=True, slots=True)
class Scores:
    """The scores of a network on some images."""

    loss: float
    """Mean cross-entropy, in nats."""
    accuracy: float
    """Share of the images whose most likely label is correct, 0..1."""


# Called after each epoch: its number from 1, the scores on training and on held-out images.
OnEpoch = Callable[[int, Scores, Scores], None]
# Images, their targets (N,) and the learning rate -> mean loss and number of correct predictions.
Step = Callable[[Images, Ints, float], tuple[float, int]]


class Network(Protocol):
    """The MobileNetV2 of one framework: `Network(classes, start, config, seed)`.

    It has K = `classes` outputs. `start` are weights to start from, without their head; None =
    random weights. `config` is that of the version: preprocessing and `width`.
    """

    def probabilities(self, images: Images) -> Floats:
        """(N, K) in inference mode."""

    def features(self, images: Images) -> Floats:
        """(N, 1280) in inference mode: what the head sees."""

    def set_head(self, kernel: Floats, bias: Floats) -> None:
        """Replaces the head: kernel (1280, K) and bias (K,)."""

    def training_step(self, blocks: int | None) -> Step:
        """A step of Adam for the last blocks and what follows them; None = the whole network.

        Batch norm is in training mode for the whole network only.
        """

    def save(self, path: Path) -> None:
        """Writes a canonical file, see `weights`."""

    def recalibrate(self, images: Images, batches: list[Ints]) -> None:
        """Recomputes batch-norm statistics as averages over batches of these images.

        Running averages lag behind weights that change fast, and inference fails with them.
        Source: arXiv 2105.07576, section 3 (PreciseBN).
        """


def scores(probabilities: Floats, targets: Ints) -> Scores:
    """The scores of probabilities (N, K) for the targets (N,)."""
    likely = probabilities[np.arange(len(targets)), targets]
    loss = -np.log(np.maximum(likely, np.finfo(np.float32).tiny)).mean()
    return Scores(float(loss), float((probabilities.argmax(axis=1) == targets).mean()))


def train(
    network: Network, examples: Examples, settings: Settings, on_epoch: OnEpoch, *, scratch: bool
) -> None:
    """Trains the whole network from scratch; else its head, then its last blocks if wanted."""
    if scratch:
        _fit(network, examples, settings, None, on_epoch)
        return
    rows = np.arange(len(examples.targets))
    head = fit_head(forward(network.features, examples, rows), examples, settings, on_epoch)
    network.set_head(*head)
    if settings.fine_tune_blocks:
        _fit(network, examples, settings, settings.fine_tune_blocks, on_epoch)


def forward(function: Callable[[Images], Floats], examples: Examples, rows: Ints) -> Floats:
    """The results of a pass without gradients, for the images of these rows in their order."""
    parts = (rows[start : start + FORWARD_IMAGES] for start in range(0, len(rows), FORWARD_IMAGES))
    return np.concatenate([function(examples.pixels[part]) for part in parts])


def _fit(
    network: Network, examples: Examples, settings: Settings, blocks: int | None, on_epoch: OnEpoch
) -> None:
    """Trains blocks of a network, or all of it, on randomly mirrored images."""
    train_step = network.training_step(blocks)

    def step(rows: Ints, learning_rate: float, rng: np.random.Generator) -> tuple[float, int]:
        images = flipped(examples.pixels[rows], rng)
        return train_step(images, examples.targets[rows], learning_rate)

    whole, last = blocks is None, settings.last_epoch
    peak = settings.learning_rate if whole else FINE_TUNE_RATE
    epochs = (0 if whole else settings.epochs, last)
    for epoch, training in _epochs(examples, settings, epochs, peak, step):
        if whole:
            network.recalibrate(examples.pixels, sample(examples.training, last=epoch == last))
        held_out = forward(network.probabilities, examples, examples.held_out)
        on_epoch(epoch, training, scores(held_out, examples.held_out_targets))


def _epochs(
    examples: Examples,
    settings: Settings,
    epochs: tuple[int, int],
    peak: float,
    step: Callable[[Ints, float, np.random.Generator], tuple[float, int]],
) -> Iterator[tuple[int, Scores]]:
    """Trains epoch by epoch; yields each number and the scores of its steps (see `plan`)."""
    rng, images = np.random.default_rng(settings.seed), len(examples.training)
    for epoch, steps in plan(examples.training, epochs, settings.batch_size, peak, rng):
        loss, correct = 0.0, 0
        for rows, learning_rate in steps:
            batch_loss, right = step(rows, learning_rate, rng)
            loss += batch_loss * len(rows)
            correct += right
        yield epoch, Scores(loss / images, correct / images)


def plan(
    rows: Ints, epochs: tuple[int, int], size: int, peak: float, rng: np.random.Generator
) -> Iterator[tuple[int, list[tuple[Ints, float]]]]:
    """The next epochs as (number from 1, steps); a step is (rows of a batch, learning rate).

    Each epoch has the training images `rows` once, in random order. Its batches have `size` images
    at most and differ by one, so that none has a single image, which batch norm cannot normalise.
    `epochs` are those finished before, and after; `peak` is the highest learning rate.
    """
    done, last = epochs
    per_epoch = math.ceil(len(rows) / size)
    steps = per_epoch * (last - done)
    for epoch in range(done + 1, last + 1):
        batches = np.array_split(rng.permutation(rows), per_epoch)
        first = (epoch - done - 1) * per_epoch
        yield epoch, [(batch, rate(first + i, steps, peak)) for i, batch in enumerate(batches)]


def sample(rows: Ints, *, last: bool) -> list[Ints]:
    """Random batches for batch-norm statistics, more for those of the finished network (`last`)."""
    chosen = np.random.default_rng(0).permutation(rows)[: FINAL_IMAGES if last else EPOCH_IMAGES]
    return np.array_split(chosen, math.ceil(len(chosen) / FORWARD_IMAGES))


def flipped(pixels: Images, rng: np.random.Generator) -> Images:
    """The images, each mirrored left to right with a probability of one half."""
    mirrored = rng.random(len(pixels)) < 0.5
    return np.where(mirrored[:, None, None, None], pixels[:, :, ::-1], pixels)


def rate(step: int, steps: int, peak: float) -> float:
    """The learning rate of a step (from 0): rises linearly, then falls along a cosine.

    Source: arXiv 1708.07120 (one cycle); training from scratch diverges without the rise.
    """
    rise = max(1, round(WARM_UP * steps))
    if step < rise:
        return peak * (step + 1) / rise
    return peak * 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, steps - rise)))


def fit_head(
    features: Floats, examples: Examples, settings: Settings, on_epoch: OnEpoch
) -> tuple[Floats, Floats]:
    """A softmax classifier on frozen features (N, F) of all examples, by AdamW.

    Returns:
        Kernel (F, K) and bias (K,).
    """
    # The last row is the bias.
    head = np.zeros((features.shape[1] + 1, len(examples.labels)), np.float32)
    mean, square = np.zeros_like(head), np.zeros_like(head)
    beta, gamma, epsilon = ADAM
    numbers = count(1)

    def step(rows: Ints, learning_rate: float, _: np.random.Generator) -> tuple[float, int]:
        nonlocal head, mean, square
        inputs = _with_one(features[rows])  # (B, F) -> (B, F + 1)
        probabilities, targets = softmax(inputs @ head), examples.targets[rows]
        found = scores(probabilities, targets)
        probabilities[np.arange(len(rows)), targets] -= 1
        gradient = inputs.T @ probabilities / np.float32(len(rows))  # (F + 1, K)
        number = next(numbers)
        mean += (1 - beta) * (gradient - mean)
        square += (1 - gamma) * (gradient * gradient - square)
        head[:-1] *= 1 - learning_rate * WEIGHT_DECAY  # the bias is not decayed
        scale = np.sqrt(square / (1 - gamma**number)) + epsilon
        head -= learning_rate * ((mean / (1 - beta**number)) / scale)
        return found.loss, round(found.accuracy * len(rows))

    epochs, peak = (0, settings.epochs), settings.learning_rate
    for epoch, training in _epochs(examples, settings, epochs, peak, step):
        held_out = softmax(_with_one(features[examples.held_out]) @ head)
        on_epoch(epoch, training, scores(held_out, examples.held_out_targets))
    return head[:-1], head[-1]


def _with_one(features: Floats) -> Floats:
    return np.concatenate([features, np.ones((len(features), 1), np.float32)], axis=1)


def softmax(logits: Floats) -> Floats:
    """Probabilities (N, K) of logits (N, K)."""
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True), np.float32)
