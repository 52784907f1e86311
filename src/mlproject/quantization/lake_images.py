"""Images of a lake for one quantization: some to calibrate on, others to measure on."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mlproject.images import samples, splits
from mlproject.images.samples import Sampled
from mlproject.ingestion import labels
from mlproject.versions.engines import Images

IMAGES = 256  # of each kind, at most
MIN_IMAGES = 8  # of each kind: fewer say nothing about an agreement
# Share of the images without a split from training that are measured on. Both kinds need as many.
_HALF = 0.5
_NONE: Images = np.empty((0, 1, 1, 3), np.uint8)

# Encoded images -> the decoded ones, uint8 (M, S, S, 3), and an error code for each; "" = none.
Decode = Callable[[Sequence[bytes]], tuple[Images, list[str]]]


@dataclass(frozen=True, slots=True)
class HeldOutImages:
    """Decoded images that no network was calibrated on."""

    squares: Images
    """Decoded, (N, S, S, 3)."""
    image_ids: tuple[str, ...]
    """Sha256 of the content, one for each."""
    paths: tuple[str, ...]
    """A file with that content, one for each."""
    labels: tuple[str | None, ...]
    """The label of each; None = it has none that the version knows."""


@dataclass(frozen=True, slots=True)
class Split:
    """Which images of a lake are held out: those of training, where their label is known."""

    labels: Mapping[str, str]
    """image_id -> label, of the images whose label the version knows."""
    held_out: frozenset[str]
    """Those among them that training leaves out."""

    def is_held_out(self, image_id: str) -> bool:
        """Whether networks are measured on an image; else they may be calibrated on it."""
        if image_id in self.labels:
            return image_id in self.held_out
        return splits.place(image_id) < _HALF


def split(lake: str, known: Sequence[str]) -> Split:
    """The split of a lake for a version that knows these labels.

    A label with one image is none here: training refuses it.
    """
    found = labels.by_image(lake)
    counts = Counter(found.values())
    usable = {label for label in known if counts[label] > 1}
    of_known = {image_id: label for image_id, label in found.items() if label in usable}
    return Split(of_known, splits.held_out(of_known))


def calibration_images(lake: str, chosen: Split, seed: int, decode: Decode) -> Images:
    """Up to `IMAGES` decoded images that are not held out: a random sample."""
    wanted = samples.draw(lake, IMAGES, seed, lambda image_id: not chosen.is_held_out(image_id))
    squares, _ = _decoded(wanted, decode)
    return squares


def held_out_images(lake: str, chosen: Split, seed: int, decode: Decode) -> HeldOutImages:
    """Up to `IMAGES` held-out images, decoded: a random sample."""
    squares, kept = _decoded(samples.draw(lake, IMAGES, seed, chosen.is_held_out), decode)
    ids = tuple(image_id for image_id, _ in kept)
    paths = tuple(path for _, path in kept)
    return HeldOutImages(squares, ids, paths, tuple(map(chosen.labels.get, ids)))


def _decoded(drawn: Iterable[Sampled], decode: Decode) -> tuple[Images, list[tuple[str, str]]]:
    """The images that can be decoded, with id and path; one encoded image is held at a time."""
    squares: list[Images] = []
    kept: list[tuple[str, str]] = []
    for image in drawn:
        square, _ = decode([image.content])
        if len(square):
            squares.append(square)
            kept.append((image.image_id, image.path))
    return np.concatenate(squares) if squares else _NONE, kept
