"""Weights files of Keras: HDF5, `.keras` archives and SavedModels, of which only arrays are read.

Keras names the arrays of a file by class and number (`conv2d_3/vars/0`: Keras 3) or by layer
(`block_1_expand/kernel`: older files, SavedModels). A model around the network, as for transfer
learning, adds words before these names, and gives the head another one.
"""

import re
import tempfile
import zipfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlproject.errors import UserError
from mlproject.weights import architectures, mobilenet_v2

SAVED_MODEL = "saved_model.pb"  # the file that makes a folder a SavedModel
SUFFIXES = (".weights.h5", ".h5", ".hdf5", ".keras", SAVED_MODEL)

# The array member of a `.keras` archive. Source: keras.src.saving.saving_lib.
_MEMBER = "model.weights.h5"

Array = NDArray[np.float32]


def download(out: Path) -> None:
    """Writes Keras' own weights of ImageNet as a canonical file.

    Raises:
        UserError: The download failed.
    """
    import keras

    try:
        network = keras.applications.MobileNetV2(weights="imagenet")
    except Exception as error:  # Keras raises a bare Exception: "URL fetch failure"
        raise mobilenet_v2.no_download(error, SUFFIXES[:-1]) from error
    network.save_weights(out)


def convert(spec: str, source: Path, out: Path) -> None:
    """Writes the network in a file or folder as a canonical file: `.weights.h5`.

    Raises:
        UserError: The file is damaged, or its arrays are not those of one MobileNetV2.
    """
    import keras

    given = _by_name(_arrays(spec, source))
    width = mobilenet_v2.width_of([array.shape for array in given.values()])
    classes = [array.shape[1] for array in given.values() if array.ndim == 2]
    network = keras.applications.MobileNetV2(
        weights=None, classes=classes[0] if classes else 1000, alpha=width or 1.0
    )
    variables = _variables(network, by_class=any("/vars/" in name for name in given))
    arrays = _with_head(given, variables)
    wanted = {name: tuple(variable.shape) for name, variable in variables.items()}
    if width is None or set(arrays) != set(wanted):
        shapes = {name: array.shape for name, array in arrays.items()}
        raise architectures.keras_misfit(spec, shapes, wanted)
    for name, array in arrays.items():
        if array.shape != wanted[name]:
            raise mobilenet_v2.misfit(
                spec, f"{name!r} has the shape {array.shape}, not {wanted[name]}"
            )
        variables[name].assign(array)
    network.save_weights(out)


def h5_arrays(spec: str, path: Path) -> dict[str, Array]:
    """The arrays of an HDF5 file of Keras by their path; imports no framework.

    Raises:
        UserError: The file is damaged.
    """
    import h5py

    arrays = {}

    def visit(name: str, node: Any) -> None:
        if isinstance(node, h5py.Dataset) and _is_weight(name, node):
            if node.external or node.is_virtual:
                raise UserError(
                    f"Weights {spec!r} refer to other files: {name!r}. Save them again."
                )
            arrays[name] = _float32(node[()])

    try:
        with h5py.File(path, "r") as file:
            file.visititems(visit)
    except OSError as error:
        raise UserError(
            f"Weights {spec!r} are not a readable HDF5 file. Save them with save_weights."
        ) from error
    return arrays


def _arrays(spec: str, source: Path) -> dict[str, Array]:
    """The arrays of a file or folder, by the names it has for them."""
    if source.is_dir():
        return _saved_model_arrays(spec, source)
    if source.suffix != ".keras":
        return h5_arrays(spec, source)
    with tempfile.TemporaryDirectory() as folder:
        try:
            with zipfile.ZipFile(source) as archive:
                member = Path(archive.extract(_MEMBER, folder))
        except (zipfile.BadZipFile, KeyError) as error:
            raise UserError(
                f"Weights {spec!r} are not a Keras archive: they contain no {_MEMBER!r}."
            ) from error
        return h5_arrays(spec, member)


def _saved_model_arrays(spec: str, folder: Path) -> dict[str, Array]:
    """The variables of a SavedModel by their names in its object graph, which is not executed."""
    import tensorflow as tf
    from tensorflow.core.protobuf.trackable_object_graph_pb2 import TrackableObjectGraph

    try:
        reader = tf.train.load_checkpoint(str(folder / "variables" / "variables"))
        graph = TrackableObjectGraph.FromString(reader.get_tensor("_CHECKPOINTABLE_OBJECT_GRAPH"))
    except (ValueError, RuntimeError, tf.errors.OpError) as error:
        raise UserError(
            f"Weights {spec!r} are not a readable SavedModel: its folder 'variables' is missing or "
            "damaged. Save it again with model.export(FOLDER)."
        ) from error
    arrays: dict[str, Array] = {}
    for node in graph.nodes:
        for variable in node.attributes:
            key = variable.checkpoint_key
            if not key.startswith("_all_variables/"):  # `export` stores each variable twice
                array = reader.get_tensor(key)
                if _is_weight(key, array):
                    name = variable.full_name
                    arrays[f"{name} (again)" if name in arrays else name] = _float32(array)
    return arrays


def _is_weight(path: str, array: Any) -> bool:
    """Whether it is a network's: not a counter, a state of random numbers, or an optimizer's."""
    kinds = "fV"  # floats; bfloat16 is unknown to NumPy
    return "optimizer" not in path.lower() and len(array.shape) > 0 and array.dtype.kind in kinds


def _float32(array: Any) -> Array:
    if array.dtype.kind == "V":  # bfloat16: the upper half of a float32
        array = (array.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
    found: Array = np.asarray(array, np.float32)
    return found


def _by_name(arrays: Mapping[str, Array]) -> dict[str, Array]:
    """The arrays by class and number, or by layer, without the words of the models around them."""
    found: dict[str, Array] = {}
    for path, array in arrays.items():
        parts = path.removesuffix(":0").replace("depthwise_kernel", "kernel").split("/")
        name = "/".join(parts[-3 if "vars" in parts else -2 :])
        found[path if name in found else name] = array  # a path fits no network
    return found


def _variables(network: Any, *, by_class: bool) -> dict[str, Any]:
    """The variables of a model by the names that `_by_name` gives them."""
    found, counts = {}, Counter[str]()
    for layer in network.layers:
        # Source: keras.src.saving.saving_lib, which numbers the layers of a class from the second.
        name = re.sub("(?<=[a-z])(?=[A-Z])", "_", type(layer).__name__).lower()
        number = f"_{counts[name]}" if counts[name] else ""
        counts[name] += 1
        for index, variable in enumerate(layer.variables):
            by_layer = f"{layer.name}/{variable.name}"
            found[f"{name}{number}/vars/{index}" if by_class else by_layer] = variable
    return found


def _with_head(arrays: Mapping[str, Array], network: Mapping[str, Any]) -> Mapping[str, Array]:
    """The arrays with the name of the network's head for their dense layer, if they have one."""
    own, given = _dense(network)[0], _dense(arrays)
    if len(given) != 1:
        return arrays
    return {re.sub(f"^{re.escape(given[0])}/", f"{own}/", name): arrays[name] for name in arrays}


def _dense(arrays: Mapping[str, Any]) -> list[str]:
    """What stands before the names of dense layers, whose kernels have two dimensions."""
    return [name.rpartition("/")[0] for name, array in arrays.items() if len(array.shape) == 2]
