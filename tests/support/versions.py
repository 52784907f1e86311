"""Registers versions of the colour model: real, and small enough for every test of scoring."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import mlflow

from mlproject.versions.engines import ONNXRUNTIME
from mlproject.versions.registration import signature
from mlproject.versions.registry import Version, resolve

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
    with mlflow.start_run():
        logged = mlflow.pyfunc.log_model(
            name="colours",
            python_model=str(Path(__file__).with_name("colour_model.py")),
            model_config={
                "engine": ONNXRUNTIME,
                "reverse": reverse,
                "fault": fault,
                "mended": str(mended),
                **config,
            },
            signature=signature(),
            pip_requirements=list(pins),
        )
    made = mlflow.register_model(f"models:/{logged.model_id}", name)
    return resolve(mlflow.MlflowClient(), f"models:/{name}/{made.version}")
