"""MobileNetV2 weights: converts the files that users have to one canonical file per framework.

No content of a file is executed: HDF5 and safetensors contain arrays only; of `.keras` archives and
SavedModels only the arrays are read, never the configuration or the graph; pickles are read by
torch's restricted reader, which imports and calls nothing that a file names.
"""

from dataclasses import dataclass, replace
from pathlib import Path

from mlproject.errors import UserError
from mlproject.weights import keras_files, mobilenet_v2, torch_files

# The value that stands for the weights that the framework downloads.
IMAGENET = "imagenet"

SUFFIXES = {"keras": keras_files.SUFFIXES, "torch": torch_files.SUFFIXES}
CANONICAL_SUFFIX = {"keras": ".weights.h5", "torch": ".safetensors"}


@dataclass(frozen=True, slots=True)
class WeightsFile:
    """One canonical weights file."""

    path: Path
    """`.weights.h5` (Keras) or `.safetensors` (torch, torchvision's names)."""
    classes: int
    """Outputs of the classification head."""
    width: float
    """Width multiplier of the network (`alpha`, `width_mult`); 1.0 is the paper's."""
    note: str = ""
    """Which of several networks in the user's file it is, as a sentence; "" = there was one."""


def canonical(framework: str, spec: str, folder: Path) -> WeightsFile:
    """The canonical file of a framework, made from `spec` in a folder that may be absent.

    The framework is imported, and a process imports one only. `spec` is `imagenet` (downloaded by
    the framework) or the path of a MobileNetV2 with its head, in a format of `keras_files` or
    `torch_files`.

    Raises:
        UserError: The file is absent, has another format, contains only pickled code, or does not
            fit MobileNetV2, or the download failed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"mobilenet_v2{CANONICAL_SUFFIX[framework]}"
    note = ""
    if spec == IMAGENET:
        (keras_files if framework == "keras" else torch_files).download(path)
    elif framework == "keras":
        keras_files.convert(spec, _existing(spec, keras_files.SUFFIXES), path)
    else:
        note = torch_files.convert(spec, _existing(spec, torch_files.SUFFIXES), path)
    return replace(read(path), note=note)


def check(framework: str, spec: str) -> None:
    """Raises UserError when `spec` names no weights file of the framework."""
    if spec != IMAGENET:
        _existing(spec, SUFFIXES[framework])


def read(path: Path) -> WeightsFile:
    """The classes and width of a canonical file, from its shapes; imports no framework.

    Raises:
        UserError: The file is absent or damaged, or contains another network.
    """
    spec = str(path)
    _existing(spec, tuple(CANONICAL_SUFFIX.values()))
    if path.suffix == ".h5":
        shapes = [array.shape for array in keras_files.h5_arrays(spec, path).values()]
    else:
        shapes = torch_files.safetensors_shapes(spec, path)
    return WeightsFile(path, *mobilenet_v2.recognise(spec, shapes))


def _existing(spec: str, suffixes: tuple[str, ...]) -> Path:
    path = Path(spec).expanduser()
    folders = keras_files.SAVED_MODEL in suffixes
    endings = ", ".join(suffix for suffix in suffixes if suffix.startswith("."))
    endings += ", or a SavedModel folder" if folders else ""
    if path.is_dir():
        if folders and (path / keras_files.SAVED_MODEL).is_file():
            return path
    elif not path.is_file():
        raise UserError(
            f"There is no weights file {spec!r}. Name {IMAGENET!r} or a file that ends in "
            f"{endings}."
        )
    elif path.name.endswith(suffixes):
        return path
    raise UserError(f"Weights file {spec!r} has another format. Name one that ends in {endings}.")
