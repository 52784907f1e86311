"""Registers versions of models that are real, and small enough for every test of scoring."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import mlflow

from mlproject.versions.engines import ONNXRUNTIME
from mlproject.versions.registration import signature
from mlproject.versions.registry import Version, add_version, resolve

PINS = ("mlflow==3.17.2", "pillow==13.0.0")


def register_colours(
    name: str,
    *,
    reverse: bool = False,
    fault: str = "",
    mended: Path | str = "",
    pins: Sequence[str] = PINS,
    config: Mapping[str, str] = MappingProxyType({}),
) -> Version:
    """A new version of the colour model.

    It names the engine whose versions share worker processes: those of a version's own take seconds
    to start.
    """
    options = {"reverse": reverse, "fault": fault, "mended": str(mended), **config}
    return _register(name, "colour_model.py", {"engine": ONNXRUNTIME, **options}, pins)


def register_devices(name: str, *, pause_s: float = 0) -> Version:
    """A new version of the device model, which sleeps `pause_s` seconds for each image."""
    return _register(name, "device_model.py", {"engine": ONNXRUNTIME, "pause_s": pause_s})


def _register(
    name: str, file: str, config: Mapping[str, object], pins: Sequence[str] = ("mlflow",)
) -> Version:
    with mlflow.start_run():
        logged = mlflow.pyfunc.log_model(
            name=file.split("_", maxsplit=1)[0],
            python_model=str(Path(__file__).with_name(file)),
            model_config=dict(config),
            signature=signature(),
            pip_requirements=list(pins),
        )
    made = add_version(logged.model_id, name, {})
    return resolve(mlflow.MlflowClient(), made.uri)
