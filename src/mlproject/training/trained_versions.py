"""Trains on the labelled images of a lake and registers the result as a model version."""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import mlflow

from mlproject.integrations import mlflow_tracking
from mlproject.integrations.framework_process import process
from mlproject.integrations.spark_session import session
from mlproject.lake import location, snapshots
from mlproject.training import classifier
from mlproject.versions import registration
from mlproject.versions.registry import Version


@dataclass(frozen=True, slots=True)
class TrainedVersion:
    """A version that was trained and registered."""

    version: Version
    """The registered version."""
    labels: tuple[str, ...]
    """One for each output of the network, in order."""
    training_images: int
    """Images that it was trained on."""
    held_out_images: int
    """Labelled images that it was only evaluated on."""
    held_out_accuracy: float
    """Share of the held-out images with a correct prediction, 0..1."""
    engine: str
    """What runs the network: `onnxruntime` or `native`."""
    engine_reason: str
    """Why it is `native` though `onnxruntime` was asked for; else empty."""
    notes: tuple[str, ...]
    """What is to be known of the weights file, each as a sentence."""


def train(
    framework: Literal["keras", "torch"],
    *,
    weights: str = "imagenet",
    lake: str = "lake",
    name: str = "photos",
    epochs: int = 0,
    image_size: int = 0,
    fine_tune_blocks: int = 0,
    seed: int = 0,
    engine: Literal["onnxruntime", "native"] = "onnxruntime",
    on_image: Callable[[int, int], None] = lambda done, total: None,
    on_epoch: Callable[[int, int], None] = lambda done, total: None,
) -> TrainedVersion:
    """Trains a classifier on the labelled images of a lake and registers it as a version.

    Args:
        framework: The framework that trains and predicts.
        weights: Where training starts: imagenet, none (random weights), or a weights file.
        lake: Folder or URI of the tables.
        name: Name of the registered model.
        epochs: Passes over the training images; 0 = a number that suits the weights.
        image_size: Side of the network's input, in pixels; 0 = a size that suits the weights.
        fine_tune_blocks: Last blocks of the network, 0 to 17, that are trained after its head.
        seed: Seed of the first weights, the order of the images and their flips.
        engine: What runs the network: ONNX Runtime if it predicts the same, or the framework.
        on_image: Called with the number of decoded images, and of all.
        on_epoch: Called with the number of finished epochs, and of all.

    Raises:
        UserError: The weights, the name or the images cannot be used; nothing was registered.
        RefusedError: The version fails on the reference images; nothing was registered.
    """
    mlflow_tracking.connect()
    registration.check_name(name)
    defaults = classifier.defaults(weights)
    settings = replace(
        defaults,
        epochs=epochs or defaults.epochs,
        image_size=image_size or defaults.image_size,
        fine_tune_blocks=fine_tune_blocks,
        seed=seed,
    )
    classifier.check(framework, weights, settings)
    tables = location.locate(lake)
    with (
        mlflow_tracking.run("train", {"lake": lake, "name": name}),
        tempfile.TemporaryDirectory() as folder,
        process(framework, on_epoch) as call,
    ):
        with session("mlproject train", lake=tables) as spark:
            images = snapshots.required(tables, "images")
            trained = classifier.train(
                spark,
                images,
                framework,
                weights,
                settings,
                engine=engine,
                call=call,
                folder=Path(folder),
                on_images=on_image,
            )
        made = call(
            registration.register,
            trained.weights,
            trained.labels,
            trained.config,
            name=name,
            tags={
                "mlproject.verb": "train",
                "mlproject.images_version": str(images.version),
                "held_out_accuracy": f"{trained.held_out_accuracy:.4f}",
            },
            images=trained.parity_images,
        )
        mlflow.set_tag("mlproject.version", made.version.uri)
    return TrainedVersion(
        made.version,
        trained.labels,
        trained.training,
        trained.held_out,
        trained.held_out_accuracy,
        made.engine.name,
        made.engine.reason,
        trained.notes,
    )
