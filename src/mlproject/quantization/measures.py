"""A network of lower precision in comparison with the float32 network that it was made from."""

import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlproject.inference import onnx_session
from mlproject.quantization.lake_images import HeldOutImages
from mlproject.versions.engines import Forward, Images

BATCH_IMAGES = 8  # as in scoring, see `engines.BATCH_IMAGES`
_ROUNDS = 15  # of timing: both networks in turn, so that a busy machine slows both

Probabilities = NDArray[np.float32]  # (N, K)


@dataclass(frozen=True, slots=True)
class NetworkMeasures:
    """What was measured of one network."""

    accuracy: float | None
    """Share of the labelled held-out images with a correct prediction, 0..1; None = no labels."""
    ms_per_image: float
    """Milliseconds an image on one thread of this machine, without decoding: the median."""
    size_bytes: int
    """Bytes of the file."""


@dataclass(frozen=True, slots=True)
class ChangedLabel:
    """A held-out image whose most likely label is not that of the float32 network."""

    image_id: str
    """Sha256 of the content."""
    path: str
    """A file with that content."""
    label: str | None
    """The label of the image; None = it has none that the version knows."""
    before: str
    """The label that the float32 network predicts."""
    score_before: float
    """Its score, 0..1."""
    after: str
    """The label that the other one predicts."""
    score_after: float
    """Its score, 0..1."""


@dataclass(frozen=True, slots=True)
class Measures:
    """A network of lower precision and the float32 network, on the same held-out images."""

    images: int
    """Held-out images."""
    labelled: int
    """Images among them with a label that the version knows."""
    top1_agreement: float
    """Share of the images for which both have the same most likely label, 0..1."""
    max_difference: float
    """The largest difference of a probability."""
    float32: NetworkMeasures
    """The float32 network."""
    quantized: NetworkMeasures
    """The network of lower precision."""
    changes: tuple[ChangedLabel, ...]
    """The images whose most likely label differs; the ones with the highest scores first."""

    def metrics(self) -> Mapping[str, float]:
        """The numbers, as metrics of an MLflow run."""
        found = {
            "held_out_images": self.images,
            "labelled_images": self.labelled,
            "top1_agreement": self.top1_agreement,
            "max_difference": self.max_difference,
        }
        for one, suffix in ((self.quantized, ""), (self.float32, "_float32")):
            if one.accuracy is not None:
                found[f"accuracy{suffix}"] = one.accuracy
            found[f"ms_per_image{suffix}"] = one.ms_per_image
            found[f"size_bytes{suffix}"] = one.size_bytes
        return found


def changed_images(found: Measures) -> pd.DataFrame:
    """A row for each image whose label changes."""
    return pd.DataFrame(map(asdict, found.changes), columns=list(ChangedLabel.__dataclass_fields__))


def measure(
    float32: Path, quantized: Path, labels: Sequence[str], images: HeldOutImages
) -> Measures:
    """Compares two networks in ONNX with these labels on images, at least one."""
    files = (float32, quantized)
    forwards = [_forward(file) for file in files]
    before, after = (np.concatenate(list(_run(one, images.squares))) for one in forwards)
    rows = [row for row, label in enumerate(images.labels) if label is not None]
    truth = [labels.index(str(images.labels[row])) for row in rows]
    times = _ms_per_image(forwards, images.squares[:BATCH_IMAGES])
    one, other = (
        NetworkMeasures(
            float((found[rows].argmax(axis=1) == truth).mean()) if rows else None,
            ms,
            file.stat().st_size,
        )
        for found, ms, file in zip((before, after), times, files, strict=True)
    )
    return Measures(
        len(before),
        len(rows),
        float((before.argmax(axis=1) == after.argmax(axis=1)).mean()),
        float(np.abs(before - after).max()),
        one,
        other,
        tuple(_changes(before, after, labels, images)),
    )


def _changes(
    before: Probabilities, after: Probabilities, labels: Sequence[str], images: HeldOutImages
) -> list[ChangedLabel]:
    found = []
    for row in np.flatnonzero(before.argmax(axis=1) != after.argmax(axis=1)):
        first, then = before[row].argmax(), after[row].argmax()
        change = ChangedLabel(
            images.image_ids[row],
            images.paths[row],
            images.labels[row],
            labels[first],
            float(before[row, first]),
            labels[then],
            float(after[row, then]),
        )
        found.append(change)
    return sorted(found, key=lambda change: -min(change.score_before, change.score_after))


def _forward(network: Path) -> Forward:
    """The network on one thread of a CPU, as in a task of Spark."""
    session = onnx_session(network, threads=1)
    [images] = session.get_inputs()
    return lambda batch: session.run(None, {images.name: batch})[0]


def _run(forward: Forward, images: Images) -> Iterator[Probabilities]:
    for start in range(0, len(images), BATCH_IMAGES):
        yield forward(images[start : start + BATCH_IMAGES])


def _ms_per_image(forwards: list[Forward], batch: Images) -> list[float]:
    """The median milliseconds an image of each function, in turn; they have run before."""
    seconds: list[list[float]] = [[] for _ in forwards]
    for _ in range(_ROUNDS):
        for forward, found in zip(forwards, seconds, strict=True):
            began = time.perf_counter()
            forward(batch)
            found.append(time.perf_counter() - began)
    return [statistics.median(found) / len(batch) * 1000 for found in seconds]
