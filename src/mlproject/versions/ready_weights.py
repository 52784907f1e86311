"""Ready weights and their labels become a registered model version, without training."""

import importlib.util
import runpy
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import mlflow
import numpy as np

from mlproject import inference
from mlproject.errors import UserError
from mlproject.images import samples
from mlproject.integrations import mlflow_tracking
from mlproject.integrations.framework_process import process
from mlproject.lake import location
from mlproject.versions import label_files, reference_images, registration
from mlproject.versions.engines import NATIVE, PARITY_IMAGES, Images
from mlproject.versions.registry import Version
from mlproject.weights import weights_files


@dataclass(frozen=True, slots=True)
class RegisteredVersion:
    """A version that was registered."""

    version: Version
    """The registered version."""
    labels: tuple[str, ...]
    """One for each output of the network, in order."""
    engine: str
    """What runs the network: `onnxruntime` or `native`."""
    engine_reason: str
    """Why it is `native` though `onnxruntime` was asked for; else empty."""
    notes: tuple[str, ...]
    """What is to be known of the files of weights and labels, each as a sentence."""


def register(
    framework: Literal["keras", "torch"],
    *,
    weights: str = "imagenet",
    labels: str = "",
    name: str = "photos",
    image_size: int = 224,
    engine: Literal["onnxruntime", "native"] = "onnxruntime",
    lake: str = "lake",
) -> RegisteredVersion:
    """Registers ready MobileNetV2 weights with their labels as a version, without training.

    Args:
        framework: The framework that predicts.
        weights: The weights: imagenet, a weights file, or a SavedModel folder.
        labels: File of labels: one a line, CSV or JSON; empty = the 1000 labels of ImageNet.
        name: Name of the registered model.
        image_size: Side of the network's input, in pixels.
        engine: What runs the network: ONNX Runtime if it predicts the same, or the framework.
        lake: Lake whose images are used to compare the two; drawn ones where it has none.

    Raises:
        UserError: Weights, labels or name cannot be used; nothing was registered.
        RefusedError: The version fails on the reference images; nothing was registered.
    """
    parameters = dict(locals())
    mlflow_tracking.connect()
    with mlflow_tracking.run("register", parameters), tempfile.TemporaryDirectory() as folder:
        registration.check_name(name)
        # Before the framework is imported, which takes seconds.
        config = registration.config(framework, image_size=image_size, engine=engine)
        weights_files.check(framework, weights)
        names, renamed = _labels(labels)
        with process(framework) as call:
            file = call(weights_files.canonical, framework, weights, Path(folder))
            config["width"] = file.width
            made = call(
                registration.register,
                file.path,
                names,
                config,
                name=name,
                tags={"mlproject.verb": "register"},
                images=_parity_images(lake, config),
            )
        mlflow.set_tag("mlproject.version", made.version.uri)
    notes = tuple(filter(None, (file.note, renamed)))
    return RegisteredVersion(
        made.version, tuple(names), made.engine.name, made.engine.reason, notes
    )


def _parity_images(lake: str, config: Mapping[str, Any]) -> Images:
    """Decoded images of a lake, or drawn ones where it has none."""
    if config["engine"] == NATIVE:
        return np.empty((0, config["crop"], config["crop"], 3), np.uint8)
    sampled = samples.sample(location.locate(lake), PARITY_IMAGES)
    squares, _ = inference.decode_all([image.content for image in sampled], config)
    if len(squares):
        return squares
    return reference_images.drawn_squares(PARITY_IMAGES, config["crop"])


def _labels(path: str) -> tuple[list[str], str]:
    """Unique labels, and which were renamed to make them so, as text."""
    return label_files.unique(label_files.read(path)) if path else (imagenet_labels(), "")


def imagenet_labels() -> list[str]:
    """The 1000 unique labels of ImageNet weights, in the order of their outputs.

    They are read from the list in torchvision, without importing torch.
    """
    package = importlib.util.find_spec("torchvision")
    if package is None or package.origin is None:
        raise UserError(
            "The labels of ImageNet are part of torchvision, which is not installed. Name a "
            "file with one label a line: -P labels=FILE"
        )
    file = Path(package.origin).parent / "models" / "_meta.py"
    return list(runpy.run_path(str(file))["_IMAGENET_CATEGORIES"])
