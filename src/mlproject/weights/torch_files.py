"""Weights files of torch: pickles of `torch.save`, read without executing them, and safetensors."""

import re
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mlproject.errors import UserError
from mlproject.weights import architectures, mobilenet_v2, state_dicts

SUFFIXES = (".pth", ".pt", ".bin", ".ckpt", ".pth.tar", ".safetensors")

_HOW = "Save network.state_dict() with torch.save or safetensors."


def download(out: Path) -> None:
    """Writes torchvision's own weights of ImageNet as a canonical file.

    Raises:
        UserError: The download failed.
    """
    import torchvision

    published = torchvision.models.MobileNet_V2_Weights.IMAGENET1K_V1
    try:
        state = published.get_state_dict(progress=False, check_hash=True, weights_only=True)
    except (OSError, RuntimeError) as error:  # URLError is an OSError; a wrong hash a RuntimeError
        raise mobilenet_v2.no_download(error, SUFFIXES) from error
    _write("imagenet", state, out)


def convert(spec: str, source: Path, out: Path) -> str:
    """Writes the network in a file as a canonical file: `.safetensors` with torchvision's names.

    The state dict may be nested in others, have any words before its names, and be of any float
    type; see `state_dicts`.

    Returns:
        Which of several networks in the file it is, as a sentence; "" = there is one.

    Raises:
        UserError: The file contains no state dict that fits MobileNetV2, or several.
    """
    content, pickled = _content(spec, source)
    arrays = state_dicts.named_arrays(content)
    if not state_dicts.without_counters(arrays):
        raise UserError(f"Weights {spec!r} contain no state dict{pickled}. {_HOW}")
    wanted = list(state_dicts.without_counters(_network(1, 1.0).state_dict()))
    state, note = state_dicts.of_network(spec, arrays, wanted)
    if not state:
        raise architectures.torch_misfit(
            spec, state_dicts.without_counters(arrays), wanted, pickled
        )
    _write(spec, state, out)
    return note


def safetensors_shapes(spec: str, path: Path) -> list[tuple[int, ...]]:
    """The shapes of all arrays; imports no framework.

    Raises:
        UserError: The file is damaged.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            return [tuple(file.get_slice(name).get_shape()) for name in file.keys()]  # noqa: SIM118 - no mapping
    except SafetensorError as error:
        raise _unreadable(spec, error) from error


def _write(spec: str, state: Mapping[str, Any], out: Path) -> None:
    """Writes a state dict that has all names of a MobileNetV2; its counters may be absent."""
    from safetensors.torch import save_file

    weights = state_dicts.without_counters(state)
    shapes = {name: tuple(value.shape) for name, value in weights.items()}
    network = _network(*mobilenet_v2.recognise(spec, list(shapes.values())))
    own = network.state_dict()
    for name, shape in shapes.items():
        if not state[name].is_floating_point():  # their scales would lie elsewhere
            raise mobilenet_v2.misfit(spec, f"{name!r} has the type {state[name].dtype}")
        if shape != tuple(own[name].shape):
            raise mobilenet_v2.misfit(
                spec, f"{name!r} has the shape {shape}, not {tuple(own[name].shape)}"
            )
    network.load_state_dict({name: state.get(name, value) for name, value in own.items()})
    save_file({name: value.contiguous() for name, value in network.state_dict().items()}, out)


def _network(classes: int, width: float) -> Any:
    import torchvision

    return torchvision.models.mobilenet_v2(num_classes=classes, width_mult=width)


def _content(spec: str, path: Path) -> tuple[Any, str]:
    """What a file contains, and which pickled objects were left out of it, as text."""
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(path), ""
        except SafetensorError as error:
            raise _unreadable(spec, error) from error
    import torch

    if _is_torchscript(path):
        raise UserError(
            f"Weights {spec!r} are a TorchScript archive, whose code is never executed. {_HOW}"
        )
    classes = _pickled_classes(path)
    try:
        with torch.serialization.safe_globals([(_inert(name), name) for name in classes]):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch's restricted reader raises any exception
        raise _unreadable(spec, error) from error
    left_out = f", and pickled objects are never loaded ({', '.join(classes[:3])})"
    return content, left_out if classes else ""


def _is_torchscript(path: Path) -> bool:
    """Source: `torch.serialization._is_torchscript_zip`."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def _pickled_classes(path: Path) -> Sequence[str]:
    """The names of classes and functions in a pickle that torch's restricted reader refuses."""
    import torch

    try:
        return sorted(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    except (ValueError, RuntimeError):  # of a file from before torch 1.6, or of none of torch
        return []


def _inert(name: str) -> type:
    """A class that stands for one of a file: it keeps nothing of what it is given.

    So what lies beside a state dict (arguments, numbers of NumPy) does not keep it from being read,
    and nothing of the file is imported or called. A dict of another class becomes a plain one.
    """

    class Inert:
        def __new__(cls, *_: Any, **__: Any) -> Any:
            return {} if name.lower().endswith("dict") else object.__new__(cls)

        def __init__(self, *_: Any, **__: Any) -> None:
            pass

        def __setstate__(self, state: Any) -> None:
            pass

    return Inert


def _unreadable(spec: str, error: Exception) -> UserError:
    pickled = re.search(r"GLOBAL (\S+)", str(error))  # of torch's restricted reader
    detail = f": it contains {pickled[1]!r}" if pickled else ""
    return UserError(
        f"Weights {spec!r} cannot be read as plain tensors (pickled code is never executed)"
        f"{detail}. {_HOW}"
    )
