"""A version of lower precision, made from a float32 version, measured and then registered."""

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import mlflow
from mlflow import MlflowClient
from mlflow.models import Model

from mlproject.errors import RefusedError, UserError, require_share
from mlproject.integrations import mlflow_tracking
from mlproject.lake import location
from mlproject.quantization import lake_images, measures, networks
from mlproject.quantization.lake_images import MIN_IMAGES
from mlproject.quantization.measures import Measures
from mlproject.quantization.networks import INT8, PRECISIONS
from mlproject.storage.local_files import output_to
from mlproject.versions import engines, registration, registry, version_files
from mlproject.versions.engines import ONNXRUNTIME
from mlproject.versions.registration import Contents
from mlproject.versions.registry import Version

PRECISION = "mlproject.precision"  # the tag of a version; none = float32
NETWORK = "network"  # the artifact


@dataclass(frozen=True, slots=True)
class QuantizedVersion:
    """A version of lower precision that was registered."""

    version: Version
    """The registered version."""
    source: Version
    """The float32 version that it was made from."""
    precision: str
    """`int8` or `float16`."""
    calibration_images: int
    """Images that int8 was calibrated on; 0 = float16."""
    measures: Measures
    """Both networks on held-out images."""


def quantize(
    model: str,
    *,
    lake: str = "lake",
    precision: Literal["int8", "float16"] = "int8",
    name: str = "",
    min_agreement: float = 0.98,
    seed: int = 0,
) -> QuantizedVersion:
    """Registers a version that computes another one's network in int8 or float16.

    Args:
        model: Model URI of the float32 version, such as models:/photos/3; its engine is
            ONNX Runtime.
        lake: Lake whose images int8 is calibrated on, and both versions are measured on.
        precision: int8 (faster on CPUs with VNNI) or float16 (half the size; faster on no CPU).
        name: Name of the registered model; empty = that of the float32 version.
        min_agreement: Lowest share of held-out images with the same most likely label, 0 to 1.
        seed: Seed of the sample of images.

    Raises:
        UserError: The version, its files or the lake cannot be used; nothing was registered.
        RefusedError: The versions agree on too few images, or the new one fails on the reference
            images; nothing was registered.
    """
    parameters = dict(locals())
    require_share(min_agreement=min_agreement)
    if precision not in PRECISIONS:
        known = ", ".join(map(repr, PRECISIONS))
        raise UserError(f"There is no precision {precision!r} (precisions: {known}).")
    client = mlflow_tracking.connect()
    with mlflow_tracking.run("quantize", parameters), tempfile.TemporaryDirectory() as temporary:
        if name:
            registration.check_name(name)
        source = replace(registry.resolve(client, model), pointer=None)
        folder, quantized = Path(temporary) / "source", Path(temporary) / "network.onnx"
        contents = _download(client, source, folder)
        code = engines.model_code().load_inference_code(contents.artifacts["inference"])
        tables, decode = location.locate(lake), _decoder(code, contents.config)
        split = lake_images.split(tables, contents.labels)
        held_out = lake_images.held_out_images(tables, split, seed, decode)
        _require_images(lake, held_out.squares, "measure")
        images = held_out.squares[:0]  # float16 needs none
        if precision == INT8:
            images = lake_images.calibration_images(tables, split, seed, decode)
            _require_images(lake, images, "calibrate")
        with output_to(Path(temporary) / "log.txt"):  # advice to authors of networks
            networks.write(precision, contents.artifacts[NETWORK], images, quantized)
        found = measures.measure(contents.artifacts[NETWORK], quantized, contents.labels, held_out)
        mlflow.log_table(measures.changed_images(found), "changed.json")
        metrics = {"calibration_images": len(images), **found.metrics()}
        if not found.top1_agreement >= min_agreement:
            mlflow.log_metrics(metrics)
            raise RefusedError(_refusal(source, precision, found, min_agreement))
        new = replace(
            contents,
            artifacts={**contents.artifacts, NETWORK: quantized},
            config={**contents.config, "precision": precision},
        )
        tags = {"mlproject.verb": "quantize", PRECISION: precision}
        tags[registry.DERIVED_FROM] = source.uri
        version = registration.log_and_register(
            new, name=name or source.name, tags=tags, metrics=metrics
        )
        mlflow.set_tag("mlproject.version", version.uri)
    return QuantizedVersion(version, source, precision, len(images), found)


def _download(client: MlflowClient, source: Version, folder: Path) -> Contents:
    """What a float32 version with a network in ONNX is made of, in a new folder.

    Raises:
        UserError: It is no such version, or its files cannot be read now.
        RefusedError: Its files are not those that were promoted.
    """
    folder.mkdir()
    files = version_files.download(source, folder)
    flavor = Model.load(str(folder / "MLmodel")).flavors.get("python_function", {})
    config: Mapping[str, Any] = flavor.get("config") or {}
    artifacts = {
        artifact: folder / entry["path"]
        for artifact, entry in (flavor.get("artifacts") or {}).items()
    }
    if config.get("precision"):
        raise UserError(
            f"{source.uri} is {config['precision']} already. Name the float32 version: "
            f"-P model={registry.source_of(client, source)}"
        )
    if config.get("engine") != ONNXRUNTIME or NETWORK not in artifacts:
        raise UserError(
            f"{source.uri} has no network in ONNX, so it cannot be quantized. Register its weights "
            "as a version that has one: mlflow run . -e register -P engine=onnxruntime"
        )
    version_files.require_unchanged(client, source, files)
    labels = artifacts["labels"].read_text(encoding="utf-8").splitlines()
    return Contents(folder / Path(flavor["model_code_path"]).name, artifacts, labels, config)


def _decoder(code: Any, config: Mapping[str, Any]) -> lake_images.Decode:
    """Decodes as the version does, with the code that it carries."""
    return lambda contents: code.decode_all(contents, config)


def _require_images(lake: str, squares: engines.Images, purpose: str) -> None:
    if len(squares) < MIN_IMAGES:
        raise UserError(
            f"Lake {lake!r} has {len(squares)} decodable images to {purpose} on, and quantize "
            f"needs {MIN_IMAGES}. Add images: mlflow run . -e ingest -P source=FOLDER"
        )


def _refusal(source: Version, precision: str, found: Measures, least: float) -> str:
    other = "-P precision=float16, " if precision == INT8 else ""
    return (
        f"The {precision} network predicts the label of {source.uri} for "
        f"{found.top1_agreement:.1%} of {found.images} held-out images, below "
        f"min_agreement={least:g}. Nothing was registered. Try {other}other images (-P seed=1), or "
        "a lower -P min_agreement"
    )
