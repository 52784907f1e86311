"""Registers a model version: logs it, tries it on the reference images, then registers it."""

import importlib.metadata
import math
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
from mlflow.models import ModelSignature
from mlflow.types.schema import Array, ColSpec, DataType, Schema

from mlproject import inference
from mlproject.errors import MachineError, RefusedError, UserError, first_line
from mlproject.integrations.framework_process import FRAMEWORKS
from mlproject.integrations.outages import raise_fault_of_machine
from mlproject.versions import engines, reference_images, reference_results, registry
from mlproject.versions.engines import NATIVE, ONNXRUNTIME, Engine, Images
from mlproject.versions.reference_results import ReferenceResult
from mlproject.versions.registry import Version
from mlproject.weights import weights_files

# What a version imports besides the standard library, pinned as installed: each one, and those of
# an engine or of a framework.
_REQUIREMENTS = ("mlflow", "numpy", "pandas", "pillow")
_REQUIREMENTS_OF = {
    ONNXRUNTIME: ("onnxruntime",),
    "keras": ("tensorflow", "keras", "h5py"),
    "torch": ("torch", "torchvision", "safetensors"),
}

# Mean and standard deviation of R, G, B on a scale of 0..1, as the weights were trained.
_NORMALISATION: dict[str, dict[str, list[float]]] = {
    # x / 127.5 - 1. Source: keras.applications.imagenet_utils, mode "tf".
    "keras": {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]},
    # Source: torchvision.models.MobileNet_V2_Weights.IMAGENET1K_V1.transforms().
    "torch": {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]},
}

# Of the sum of scores above 1: softmax in float32 is exact to a few units of 2**-23.
_SUM_TOLERANCE = 1e-5


@dataclass(frozen=True, slots=True)
class Contents:
    """What a version is made of."""

    code: Path
    """The file that MLflow executes."""
    artifacts: Mapping[str, Path]
    """Files and folders: `weights`, `network` (unless native), `labels` and `inference`."""
    labels: Sequence[str]
    """Those of the artifact, one for each output of the network."""
    config: Mapping[str, Any]
    """The numbers of preprocessing and prediction, and the engine."""


@dataclass(frozen=True, slots=True)
class Registration:
    """A version that was registered, and what runs it."""

    version: Version
    """The registered version."""
    engine: Engine
    """The engine of its network."""


def config(
    framework: str,
    *,
    image_size: int = 224,
    width: float = 1.0,
    top_k: int = 5,
    engine: str = ONNXRUNTIME,
) -> dict[str, Any]:
    """The numbers of preprocessing and prediction, which travel inside the version.

    The paper's image_size is 224 pixels; the short side of an image is resized to 256/224 of it
    before the crop. `batch_size` images are decoded and computed at a time on a CPU: it bounds the
    memory. `device_batch_size` is that of an accelerator; 0 = chosen by its memory.

    Raises:
        UserError: No such framework or engine, or a number is too small.
    """
    engines.check(engine)
    if framework not in FRAMEWORKS:
        known = ", ".join(map(repr, FRAMEWORKS))
        raise UserError(f"There is no framework {framework!r} (frameworks: {known}).")
    # MobileNetV2 halves the image five times. Source: keras.applications, min_size=32.
    if image_size < 32 or top_k < 1:
        raise UserError(
            f"A version needs image_size >= 32 and top_k >= 1, not {image_size!r} and {top_k!r}."
        )
    return {
        "framework": framework,
        "engine": engine,
        "architecture": "mobilenet_v2",
        "width": width,
        "resize": round(image_size * 256 / 224),
        "crop": image_size,
        **_NORMALISATION[framework],
        "top_k": top_k,
        "batch_size": engines.BATCH_IMAGES[engine],
        "device_batch_size": 0,
        **inference.DEFAULTS,
    }


def register(
    weights_path: Path,
    labels: Sequence[str],
    config: Mapping[str, Any],
    *,
    name: str,
    tags: Mapping[str, str],
    images: Images,
) -> Registration:
    """The registered version: logged to the active run, tried, and then registered.

    The version runs in this process, which has its framework: see `framework_process.process`. A
    network that cannot be exported, or predicts otherwise in ONNX Runtime, gets the engine native.

    Args:
        weights_path: A canonical file, see `weights_files`.
        labels: One for each output of the network, in its order; unique, one line each.
        config: What `config` gives.
        name: Name of the registered model.
        tags: Tags of the version, besides `framework`, `image_size`, `width`, `classes`, `engine`
            and what was measured of the engine.
        images: Images on which the engine is compared with the framework, see `engines.choose`.

    Raises:
        UserError: Weights, labels, config or name do not fit together; nothing was logged.
        RefusedError: The version fails on the reference images; nothing was registered.
        MachineError: The machine failed meanwhile; nothing was registered.
    """
    _check(weights_path, labels, config, name)
    with tempfile.TemporaryDirectory() as folder:
        engine = engines.choose(weights_path, len(labels), config, images, Path(folder))
        chosen = {"engine": engine.name, "batch_size": engines.BATCH_IMAGES[engine.name]}
        artifacts = _artifacts(weights_path, engine.network, labels, Path(folder))
        contents = Contents(engines.model_file(), artifacts, labels, {**config, **chosen})
        reason = {"engine_reason": engine.reason} if engine.reason else {}
        parity = asdict(engine.parity) if engine.parity else {}
        measured = {f"parity_{measure}": value for measure, value in parity.items()}
        version = log_and_register(contents, name=name, tags={**reason, **tags}, metrics=measured)
    return Registration(version, engine)


def log_and_register(
    contents: Contents, *, name: str, tags: Mapping[str, str], metrics: Mapping[str, float]
) -> Version:
    """The registered version: logged to the active run, tried in this process, then registered.

    Args:
        contents: What the version is made of; it fits together.
        name: Name of the registered model.
        tags: As for `register`.
        metrics: What was measured: metrics of the run and the logged model, and more tags.

    Raises:
        RefusedError: The version fails on the reference images; nothing was registered.
        MachineError: The machine failed meanwhile; nothing was registered.
    """
    config, engine = contents.config, contents.config["engine"]
    own = {"framework": config["framework"], "image_size": str(config["crop"]), "engine": engine}
    own |= {"width": str(config["width"]), "classes": str(len(contents.labels))}
    own |= {measure: f"{value:.3g}" for measure, value in metrics.items()}
    runner = config["framework"] if engine == NATIVE else engine
    logged = mlflow.pyfunc.log_model(
        name=f"{config['framework']}_mobilenet_v2",
        python_model=str(contents.code),
        artifacts={artifact: str(path) for artifact, path in contents.artifacts.items()},
        model_config=dict(config),
        signature=signature(),
        input_example=pd.DataFrame({"content": [reference_images.example()]}),
        pip_requirements=[_pin(package) for package in (*_REQUIREMENTS, *_REQUIREMENTS_OF[runner])],
    )
    model_id = str(logged.model_id)
    try:
        _check_results(f"models:/{model_id}", contents.labels, config)
    except (RefusedError, MachineError):
        mlflow.MlflowClient().delete_logged_model(model_id)
        raise
    if metrics:
        mlflow.log_metrics(dict(metrics), model_id=model_id)
    return registry.add_version(model_id, name, {**own, **tags})


def signature() -> ModelSignature:
    """The signature of every version: one column `content`; the outputs are `inference.COLUMNS`."""
    text, number = DataType.string, DataType.double
    types = (text, number, Array(text), Array(number), text)
    outputs = [ColSpec(kind, name) for kind, name in zip(types, inference.COLUMNS, strict=True)]
    return ModelSignature(Schema([ColSpec(DataType.binary, "content")]), Schema(outputs))


def check_name(name: str) -> None:
    """Raises UserError when a model cannot be registered, or named in a URI, by this name."""
    # Source: mlflow.utils.validation, which checks only after the model was logged.
    if not name.strip() or set(name) & set("/:@"):
        raise UserError(
            f"Model name {name!r} is not allowed: it must not be empty or contain '/', ':' or '@'. "
            "Choose another: -P name=photos"
        )


def _check(path: Path, labels: Sequence[str], config: Mapping[str, Any], name: str) -> None:
    check_name(name)
    suffix = weights_files.CANONICAL_SUFFIX[config["framework"]]
    if not path.name.endswith(suffix):
        raise UserError(
            f"Weights {str(path)!r} are not a {suffix} file, the format for {config['framework']}."
        )
    file = weights_files.read(path)
    if len(labels) != file.classes:
        raise UserError(
            f"{len(labels)} labels do not fit weights {str(path)!r} with {file.classes} outputs. "
            "Write one label per line, in the order of the outputs."
        )
    if file.width != config["width"]:
        raise UserError(
            f"Weights {str(path)!r} have width {file.width}, the config has {config['width']}. "
            "Set both to the same width."
        )
    odd = [label for label in labels if not label.strip() or len(label.splitlines()) != 1]
    if odd:
        raise UserError(
            f"Label {odd[0]!r} is empty or has several lines. Write one label per line."
        )
    if len(set(labels)) < len(labels):
        twice = next(label for index, label in enumerate(labels) if label in labels[:index])
        raise UserError(
            f"Label {twice!r} occurs more than once. Remove it from the file of labels."
        )


def _artifacts(
    path: Path, network: Path | None, labels: Sequence[str], folder: Path
) -> dict[str, Path]:
    """Artifact name -> path of what travels in the version; labels and code lie in `folder`."""
    labels_file, code = folder / "labels.txt", folder / "inference"
    labels_file.write_text("\n".join(labels) + "\n", encoding="utf-8")
    code.mkdir()
    for file in Path(inference.__file__).parent.glob("*.py"):  # not __pycache__
        shutil.copyfile(file, code / file.name)
    files = {"weights": path, "network": network, "labels": labels_file, "inference": code}
    return {name: file for name, file in files.items() if file}


def _pin(package: str) -> str:
    """A requirement as installed, without the tag of a local build (2.15.0+cpu)."""
    return f"{package}=={importlib.metadata.version(package).partition('+')[0]}"


def _check_results(uri: str, labels: Sequence[str], config: Mapping[str, Any]) -> None:
    """Raises RefusedError unless the logged model gives the expected results."""
    try:
        results = reference_results.predict_reference_images(uri)
    except Exception as error:
        raise_fault_of_machine(error, "Nothing was registered")
        raise RefusedError(
            f"The version does not run: {first_line(error)} Nothing was registered."
        ) from error
    for result in results:
        fault = _fault(result, labels, config["top_k"]) or reference_results.batch_fault(result)
        if fault:
            raise RefusedError(
                f"The prediction of the version for the reference image {result.image.name!r} is "
                f"wrong: {fault}. Nothing was registered."
            )


def _fault(result: ReferenceResult, labels: Sequence[str], top_k: int) -> str:
    """Why a prediction is not what a version of this project returns, as text; "" = it is."""
    row, expected = result.batched, result.image.error
    scores, top = list(row["top_scores"]), list(row["top_labels"])
    if row["error"] != expected:
        return f"error {row['error']!r} instead of {expected!r}"
    if expected:
        empty = row["label"] == "" and math.isnan(row["score"]) and not scores and not top
        return "" if empty else "a label or scores beside an error"
    broken = reference_results.prediction_fault(row)
    if broken:
        return broken.reason
    rules = {
        "the scores sum to more than 1": sum(scores) <= 1 + _SUM_TOLERANCE,
        "the scores are not in descending order": scores == sorted(scores, reverse=True),
        "a label is not one of the version's labels": set(top) <= set(labels),
        "a label occurs twice": len(set(top)) == len(top),
        "the number of top labels is wrong": len(top) == min(top_k, len(labels)),
        "label and score are not the first of the top": [row["label"], row["score"]]
        == [top[0], scores[0]],
    }
    return next((rule for rule, kept in rules.items() if not kept), "")
