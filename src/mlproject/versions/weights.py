"""MobileNetV2 weights: converts the files that users have to one canonical file per framework.

No content of a file is executed: HDF5 and safetensors contain arrays only, of `.keras` archives
only the arrays are read, never the configuration, and `.pth`/`.pt` files are read by torch's
restricted reader, which refuses pickled code.
"""

import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlproject.errors import UserError, first_line
from mlproject.versions import mobilenet_v2

# The value that stands for the weights that the framework downloads.
IMAGENET = "imagenet"

SUFFIXES = {"keras": (".weights.h5", ".h5", ".keras"), "torch": (".pth", ".pt", ".safetensors")}
CANONICAL_SUFFIX = {"keras": ".weights.h5", "torch": ".safetensors"}

# The array member of a `.keras` archive. Source: keras.src.saving.saving_lib.
_KERAS_MEMBER = "model.weights.h5"


@dataclass(frozen=True, slots=True)
class WeightsFile:
    """One canonical weights file."""

    path: Path
    """`.weights.h5` (Keras) or `.safetensors` (torch, torchvision's names)."""
    classes: int
    """Outputs of the classification head."""
    width: float
    """Width multiplier of the network (`alpha`, `width_mult`); 1.0 is the paper's."""


def canonical(framework: str, spec: str, folder: Path) -> WeightsFile:
    """The canonical file of a framework, made from `spec` in a folder that may be absent.

    The framework is imported, and a process imports one only. `spec` is `imagenet` (downloaded by
    the framework) or the path of a MobileNetV2 with its head: for Keras a `.weights.h5`, `.h5` or
    `.keras` file, for torch a `.safetensors` file, or a `.pth` or `.pt` state dict (bare, or under
    `state_dict` or `model`).

    Raises:
        UserError: The file is absent, has another format, contains pickled code, or does not fit
            MobileNetV2, or the download failed.
    """
    return (keras_file if framework == "keras" else torch_file)(spec, folder)


def check(framework: str, spec: str) -> None:
    """Raises UserError when `spec` names no weights file of the framework."""
    if spec != IMAGENET:
        _existing(spec, SUFFIXES[framework])


def keras_file(spec: str, folder: Path) -> WeightsFile:
    """A `.weights.h5` of `keras.applications.MobileNetV2`, see `canonical`."""
    network = _keras_download() if spec == IMAGENET else _keras_network(spec)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "mobilenet_v2.weights.h5"
    network.save_weights(path)
    return read(path)


def torch_file(spec: str, folder: Path) -> WeightsFile:
    """A `.safetensors` of `torchvision.models.mobilenet_v2`, see `canonical`."""
    state = _torch_download() if spec == IMAGENET else _torch_state(spec)
    classes, width = mobilenet_v2.recognise(spec, [tuple(value.shape) for value in state.values()])

    import torchvision
    from safetensors.torch import save_file

    network = torchvision.models.mobilenet_v2(num_classes=classes, width_mult=width)
    wanted = network.state_dict()
    # Batch counters matter to training only; older files lack them.
    counters = {key: value for key, value in wanted.items() if key.endswith("num_batches_tracked")}
    try:
        network.load_state_dict({**counters, **state})
    except (RuntimeError, TypeError) as error:
        # torch lists every key on many lines: the count and one key are enough.
        odd = sorted(set(wanted) ^ set({**counters, **state})) or ["a shape"]
        detail = f"{len(odd)} keys differ from torchvision's, the first is {odd[0]!r}"
        raise mobilenet_v2.misfit(spec, detail) from error
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "mobilenet_v2.safetensors"
    save_file({key: value.contiguous() for key, value in network.state_dict().items()}, path)
    return WeightsFile(path, classes, width)


def read(path: Path) -> WeightsFile:
    """The classes and width of a canonical file, from its shapes; imports no framework."""
    spec = str(path)
    _existing(spec, tuple(CANONICAL_SUFFIX.values()))
    shapes = _h5_shapes(spec, path) if path.suffix == ".h5" else _safetensors_shapes(spec, path)
    return WeightsFile(path, *mobilenet_v2.recognise(spec, shapes))


def _existing(spec: str, suffixes: tuple[str, ...]) -> Path:
    path, endings = Path(spec).expanduser(), ", ".join(suffixes)
    if not path.is_file():
        raise UserError(
            f"There is no weights file {spec!r}. Name {IMAGENET!r} or a file that ends in "
            f"{endings}."
        )
    if not path.name.endswith(suffixes):
        raise UserError(
            f"Weights file {spec!r} has another format. Name one that ends in {endings}."
        )
    return path


def _reason(error: Exception) -> str:
    return first_line(error).rstrip(".")


def _h5_shapes(spec: str, path: Path) -> list[tuple[int, ...]]:
    """Shape of every array of a Keras HDF5 file, without those of the optimizer."""
    import h5py

    shapes: list[tuple[int, ...]] = []

    def visit(name: str, node: Any) -> None:
        if isinstance(node, h5py.Dataset) and not name.startswith("optimizer"):
            shapes.append(tuple(node.shape))

    try:
        with h5py.File(path, "r") as file:
            file.visititems(visit)
    except OSError as error:
        raise UserError(
            f"Weights {spec!r} are not a readable HDF5 file. Save them with save_weights."
        ) from error
    return shapes


def _safetensors_shapes(spec: str, path: Path) -> list[tuple[int, ...]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            return [tuple(file.get_slice(name).get_shape()) for name in file.keys()]  # noqa: SIM118 - no mapping
    except SafetensorError as error:
        raise UserError(f"Weights {spec!r} are not a readable safetensors file.") from error


def _keras_network(spec: str) -> Any:
    """The network with the arrays of a file; the configuration in an archive is not read."""
    source = _existing(spec, SUFFIXES["keras"])
    with tempfile.TemporaryDirectory() as folder:
        arrays = source
        if source.suffix == ".keras":
            try:
                with zipfile.ZipFile(source) as archive:
                    arrays = Path(archive.extract(_KERAS_MEMBER, folder))
            except (zipfile.BadZipFile, KeyError) as error:
                raise UserError(
                    f"Weights {str(source)!r} are not a Keras archive: they contain no "
                    f"{_KERAS_MEMBER!r}."
                ) from error
        classes, width = mobilenet_v2.recognise(spec, _h5_shapes(spec, arrays))
        import keras

        network = keras.applications.MobileNetV2(weights=None, classes=classes, alpha=width)
        try:
            network.load_weights(arrays)
        except (ValueError, KeyError, OSError, TypeError) as error:
            raise mobilenet_v2.misfit(spec, _reason(error)) from error
        return network


def _keras_download() -> Any:
    import keras

    try:
        return keras.applications.MobileNetV2(weights=IMAGENET)
    except Exception as error:  # Keras raises a bare Exception: "URL fetch failure"
        raise _no_download("keras", error) from error


def _no_download(framework: str, error: Exception) -> UserError:
    return UserError(
        f"The download of the ImageNet weights failed ({_reason(error)}). Try again with network "
        f"access, or name a file that ends in {', '.join(SUFFIXES[framework])}."
    )


def _torch_download() -> Mapping[str, Any]:
    import torchvision

    published = torchvision.models.MobileNet_V2_Weights.IMAGENET1K_V1
    try:
        state = published.get_state_dict(progress=False, check_hash=True, weights_only=True)
    except (OSError, RuntimeError) as error:  # URLError is an OSError; a wrong hash a RuntimeError
        raise _no_download("torch", error) from error
    return dict(state)


def _torch_state(spec: str) -> Mapping[str, Any]:
    """The state dict in a file: torchvision's names, values are tensors."""
    path = _existing(spec, SUFFIXES["torch"])
    import torch
    from safetensors.torch import load_file

    try:
        state = (
            load_file(path)
            if path.suffix == ".safetensors"
            else torch.load(path, map_location="cpu", weights_only=True)
        )
    except Exception as error:  # torch's restricted reader raises any exception
        raise UserError(
            f"Weights {spec!r} cannot be read as plain tensors (pickled code is never executed). "
            "Save network.state_dict() with torch.save or safetensors."
        ) from error
    for wrapper in ("state_dict", "model"):  # keys under which training scripts save a state dict
        if isinstance(state, Mapping) and isinstance(state.get(wrapper), Mapping):
            state = state[wrapper]
    if not isinstance(state, Mapping) or not all(
        isinstance(key, str) and isinstance(value, torch.Tensor) for key, value in state.items()
    ):
        raise mobilenet_v2.misfit(spec, "the file contains no state dict")
    # DataParallel prefixes every name with "module.".
    return {key.removeprefix("module."): value for key, value in state.items()}
