"""The engine of a version: ONNX Runtime where it predicts what the framework does, else native.

The functions run in the process of the framework, which exports the network and stays the measure.
"""

import importlib.util
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlproject import inference
from mlproject.errors import UserError, first_line
from mlproject.integrations.outages import raise_fault_of_machine
from mlproject.storage.local_files import output_to
from mlproject.versions import reference_images

ONNXRUNTIME, NATIVE = "onnxruntime", "native"
# Images that are decoded and computed at a time on a CPU. ONNX Runtime is as fast with 1 as with
# 64, and needs 123 MB with 1, 206 with 8, 500 with 32, 985 with 64.
BATCH_IMAGES = {ONNXRUNTIME: 8, NATIVE: 32}

PARITY_IMAGES = 64  # at most, besides the reference images
MAX_DIFFERENCE = 1e-4  # of a probability
_PARITY_BATCHES = (1, 32)  # images at a time
# Labels whose probabilities differ by less are equally likely: between batches of 1 and of 32 the
# frameworks themselves differ by up to 3.2e-6.
_TIE = 1e-5

Images = NDArray[np.uint8]  # (N, S, S, 3) RGB
Forward = Callable[[Images], NDArray[np.float32]]  # to probabilities (N, K)


@dataclass(frozen=True, slots=True)
class Parity:
    """How close the probabilities of ONNX Runtime are to those of the framework."""

    max_difference: float
    """The largest difference of a probability."""
    top1_agreement: float
    """Share of the images with the same most likely label, 0..1."""

    @property
    def is_reached(self) -> bool:
        """Whether ONNX Runtime may stand for the framework."""
        return self.max_difference <= MAX_DIFFERENCE and self.top1_agreement == 1


@dataclass(frozen=True, slots=True)
class Engine:
    """What runs the network of a version."""

    name: str
    """`onnxruntime` or `native`, which is the framework itself."""
    reason: str = ""
    """Why it is native though ONNX Runtime was asked for; empty = it is as asked for."""
    network: Path | None = None
    """The network in ONNX: uint8 images (N, S, S, 3) -> float32 probabilities (N, K)."""
    parity: Parity | None = None
    """What was measured; None = nothing was exported."""


def check(name: str) -> None:
    """Raises UserError when there is no such engine."""
    if name not in BATCH_IMAGES:
        known = ", ".join(map(repr, BATCH_IMAGES))
        raise UserError(f"There is no engine {name!r} (engines: {known}).")


def choose(
    weights: Path, classes: int, config: Mapping[str, Any], images: Images, folder: Path
) -> Engine:
    """The engine of a new version: what the config asks for, if ONNX Runtime reaches parity.

    Args:
        weights: A canonical file, see `weights_files`.
        classes: Outputs of the network.
        config: As `registration.config` gives it.
        images: Images for the comparison, besides the reference images.
        folder: Where the network in ONNX is written.

    Raises:
        MachineError: The machine failed while the network was exported or loaded.
    """
    if config["engine"] == NATIVE:
        return Engine(NATIVE)
    framework, code = config["framework"], model_code()
    network, arguments = folder / "network.onnx", (classes, config, None)
    try:
        with tempfile.TemporaryDirectory() as logs, output_to(Path(logs) / "log.txt"):
            {"keras": _export_keras, "torch": _export_torch}[framework](
                getattr(code, f"{framework}_network")(weights, classes, config), config, network
            )
            native = code.LOADERS[framework][1](inference, weights, *arguments)
            exported = code.LOADERS[ONNXRUNTIME][1](inference, network, *arguments)
    except Exception as error:  # noqa: BLE001 - whatever an exporter, or ONNX Runtime, raises
        raise_fault_of_machine(error, "The network was not exported to ONNX")
        return Engine(NATIVE, f"the network cannot be exported to ONNX: {first_line(error)}")
    contents = [image.content for image in reference_images.reference_images()]
    drawn, _ = inference.decode_all(contents, config)
    found = parity(native, exported, np.concatenate([drawn, images[:PARITY_IMAGES]]))
    if found.is_reached:
        return Engine(ONNXRUNTIME, network=network, parity=found)
    reason = (
        f"ONNX Runtime differs from {framework} by up to {found.max_difference:.2g} in a "
        f"probability, and agrees on {found.top1_agreement:.1%} of the most likely labels"
    )
    return Engine(NATIVE, reason, parity=found)


def parity(native: Forward, exported: Forward, images: Images) -> Parity:
    """Compares two functions on the same images, in batches of 1 and of 32."""
    differences, same = [], []
    for size in _PARITY_BATCHES:
        for start in range(0, len(images), size):
            batch = images[start : start + size]
            expected, found = native(batch), exported(batch)
            differences.append(np.abs(expected - found).max())
            likely = expected[np.arange(len(batch)), found.argmax(axis=1)]
            same.append(likely >= expected.max(axis=1) - _TIE)
    return Parity(float(np.max(differences)), float(np.concatenate(same).mean()))


def model_file() -> Path:
    """The file that MLflow executes: in `mlproject/models` of an installation, else in `models`."""
    package = Path(inference.__file__).parents[1]
    folder = package / "models"
    return (folder if folder.is_dir() else package.parents[1] / "models") / "mobilenet_v2.py"


def model_code() -> Any:
    """The code of that file, as a module."""
    spec = importlib.util.spec_from_file_location("mlproject_model_file", model_file())
    if spec is None or spec.loader is None:
        raise ImportError(f"{model_file()} cannot be imported")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _rows(config: Mapping[str, Any]) -> Iterator[NDArray[np.float32]]:
    """Mean and standard deviation, float32 (W, 3): the channels of one pixel, W times.

    A broadcast of three numbers over the last axis takes ONNX Runtime 0.8 ms an image, that of a
    whole row 0.1.
    """
    for name in ("mean", "std"):
        yield np.tile(np.float32(config[name]), (config["crop"], 1))


def _export_keras(network: Any, config: Mapping[str, Any], out: Path) -> None:
    """Writes a Keras model with its preprocessing in ONNX."""
    import keras

    mean, std = _rows(config)
    images = keras.Input((config["crop"], config["crop"], 3), dtype="uint8", name="images")
    pixels = keras.ops.cast(images, "float32") / 255.0
    whole = keras.Model(images, network((pixels - mean) / std, training=False))
    whole(np.zeros((1, *images.shape[1:]), np.uint8))  # one that was never called is not exported
    whole.export(out, format="onnx", verbose=False)


def _export_torch(network: Any, config: Mapping[str, Any], out: Path) -> None:
    """Writes a torch module with its preprocessing and softmax in ONNX."""
    import torch

    class Whole(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network = network
            mean, std = map(torch.from_numpy, _rows(config))
            self.mean, self.std = torch.nn.Buffer(mean), torch.nn.Buffer(std)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            normalised = (images.float() / 255.0 - self.mean) / self.std
            return torch.softmax(self.network(normalised.permute(0, 3, 1, 2)), dim=1)

    two = torch.zeros((2, config["crop"], config["crop"], 3), dtype=torch.uint8)  # 1 would stay 1
    torch.onnx.export(
        Whole().eval(),
        (two,),
        out,
        dynamo=True,
        dynamic_shapes=({0: torch.export.Dim("N", min=1)},),
        input_names=["images"],
        output_names=["probabilities"],
        external_data=False,
        verbose=False,
    )
