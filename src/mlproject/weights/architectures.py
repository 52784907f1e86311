"""The published architecture that weights are of, for the error that says why they do not fit."""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from mlproject.errors import UserError
from mlproject.weights import mobilenet_v2, state_dicts

Shapes = Mapping[str, tuple[int, ...]]  # by the array's name

# Below this share of arrays in common nothing is said: more arrays differ than agree.
_LEAST_SHARE = 0.5

# What is compared: names tell the blocks of a width or depth apart, shapes those of a library that
# has other names.
_COMPARED: dict[str, Callable[[Shapes], Iterable[Any]]] = {
    "names and shapes": lambda arrays: arrays.items(),
    "names": lambda arrays: arrays.keys(),
    "shapes": lambda arrays: arrays.values(),
}

# Parameters of the convolution kernels (four dimensions) in the models of keras.applications. To
# build all of them takes 50 s, so only those nearest in this number are built and compared.
# Source: keras 3.15.1; a test counts them again.
KERAS_PARAMETERS = {
    "ConvNeXtBase": 3_643_008,
    "ConvNeXtLarge": 7_528_896,
    "ConvNeXtSmall": 2_216_160,
    "ConvNeXtTiny": 1_877_472,
    "ConvNeXtXLarge": 12_791_040,
    "DenseNet121": 6_870_208,
    "DenseNet169": 12_326_080,
    "DenseNet201": 17_863_872,
    "EfficientNetB0": 3_956_192,
    "EfficientNetB1": 6_436_976,
    "EfficientNetB2": 7_618_016,
    "EfficientNetB3": 10_588_856,
    "EfficientNetB4": 17_394_376,
    "EfficientNetB5": 28_127_728,
    "EfficientNetB6": 40_458_672,
    "EfficientNetB7": 63_403_040,
    "EfficientNetV2B0": 5_784_576,
    "EfficientNetV2B1": 6_773_152,
    "EfficientNetV2B2": 8_586_384,
    "EfficientNetV2B3": 12_687_448,
    "EfficientNetV2L": 116_602_144,
    "EfficientNetV2M": 52_498_504,
    "EfficientNetV2S": 19_988_424,
    "InceptionResNetV2": 54_200_160,
    "InceptionV3": 21_751_136,
    "MobileNet": 4_209_088,
    "MobileNetV2": 2_189_760,
    "MobileNetV3Large": 5_451_272,
    "MobileNetV3Small": 2_525_832,
    "NASNetLarge": 84_523_482,
    "NASNetMobile": 4_196_240,
    "ResNet101": 42_394_816,
    "ResNet101V2": 42_394_816,
    "ResNet152": 57_992_384,
    "ResNet152V2": 57_992_384,
    "ResNet50": 23_454_912,
    "ResNet50V2": 23_454_912,
    "VGG16": 14_710_464,
    "VGG19": 20_018_880,
    "Xception": 20_752_424,
}
_BUILT = 3  # ResNet50 and ResNet50V2 have the same number


class Nearest(NamedTuple):
    """The architecture whose arrays are most like those of a file."""

    name: str
    prefix: str
    """What stands before the names in the file."""
    compared: str
    """`names and shapes`, `names` or `shapes`."""
    arrays: int
    """Arrays that both have."""
    of: int
    """Arrays of the architecture."""


def nearest(
    subtrees: Mapping[str, Shapes],
    known: Mapping[str, Shapes],
    compared: Sequence[str] = tuple(_COMPARED),
) -> Nearest | None:
    """The known architecture that a subtree of a file is most like.

    They are alike when the arrays that both have are at least half of the arrays that one or the
    other has; None = no architecture is like a subtree.
    """
    for what in compared:
        view = _COMPARED[what]
        counted = {name: Counter(view(shapes)) for name, shapes in known.items()}
        alike = []
        for prefix, shapes in subtrees.items():
            found = Counter(view(shapes))
            for name, own in counted.items():
                same = (found & own).total()
                share = same / (found.total() + own.total() - same)
                alike.append((share, Nearest(name, prefix, what, same, own.total())))
        share, best = max(alike, key=lambda pair: pair[0], default=(0.0, None))
        if share >= _LEAST_SHARE:
            return best
    return None


def torch_misfit(
    spec: str, arrays: state_dicts.Arrays, wanted: Sequence[str], more: str
) -> UserError:
    """The error for a state dict of another network; imports torchvision.

    Args:
        spec: The file as the user named it.
        arrays: All arrays of the file, by name.
        wanted: The names of a MobileNetV2.
        more: What else is to be said, appended.
    """
    trees = {
        prefix: {name: tuple(array.shape) for name, array in tree.items()}
        for prefix, tree in state_dicts.subtrees(arrays).items()
    }
    best = nearest(trees, _torchvision())
    prefix = best.prefix if best else max(trees, key=lambda one: len(set(wanted) & set(trees[one])))
    return _misfit(spec, wanted, trees[prefix], best, more)


def keras_misfit(spec: str, arrays: Shapes, wanted: Shapes) -> UserError:
    """The error for arrays of another network; imports Keras.

    Args:
        spec: The file as the user named it.
        arrays: All arrays of the file, by name.
        wanted: Those of the nearest MobileNetV2.
    """
    size = _kernel_parameters(arrays)
    distances = {name: abs(own - size) for name, own in KERAS_PARAMETERS.items()}
    built = sorted(distances, key=distances.__getitem__)[:_BUILT]
    known = {**{name: keras_shapes(name) for name in built}, "MobileNetV2": wanted}
    # Keras 3 names arrays by class, so the names of two networks are much alike.
    return _misfit(spec, wanted, arrays, nearest({"": arrays}, known, ["shapes"]))


def keras_shapes(name: str, **options: Any) -> dict[str, tuple[int, ...]]:
    """The shapes of a model of keras.applications, by layer and variable; no array is made."""
    import keras

    with keras.StatelessScope(initialize_variables=False):
        network = getattr(keras.applications, name)(weights=None, **options)
    return {
        f"{layer.name}/{variable.name}": tuple(variable.shape)
        for layer in network.layers
        for variable in layer.variables
    }


def _kernel_parameters(arrays: Shapes) -> int:
    return sum(math.prod(shape) for shape in arrays.values() if len(shape) == 4)


def _torchvision() -> dict[str, dict[str, tuple[int, ...]]]:
    """The shapes of torchvision's classification models; takes seconds, and little memory."""
    import torch
    import torchvision
    from torch.overrides import TorchFunctionMode

    class EmptyOnMeta(TorchFunctionMode):
        """Allocates no weights. On the device meta alone RegNet cannot compute its widths."""

        def __torch_function__(self, func: Any, _: Any, args: Any = (), kwargs: Any = None) -> Any:
            meta = {"device": "meta"} if func is torch.empty else {}
            return func(*args, **{**(kwargs or {}), **meta})

    known = {}
    for name in torchvision.models.list_models(module=torchvision.models):
        # These two draw their first weights with SciPy's functions, and warn of it.
        options = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
        with EmptyOnMeta():
            state = torchvision.models.get_model(name, **options).state_dict()
        arrays = state_dicts.without_counters(state)
        known[name] = {key: tuple(value.shape) for key, value in arrays.items()}
    return known


def _misfit(
    spec: str, wanted: Iterable[str], found: Iterable[str], best: Nearest | None, more: str = ""
) -> UserError:
    keys = [_first("missing", wanted, found), _first("unexpected", found, wanted)]
    detail = "; ".join(filter(None, keys))
    if best:
        detail += (
            f"; {best.name} fits best: {best.arrays} of its {best.of} arrays have the same "
            f"{best.compared}"
        )
    return mobilenet_v2.misfit(spec, detail + more)


def _first(word: str, names: Iterable[str], others: Iterable[str]) -> str:
    """The first three of the names that are not among others, as text."""
    known = set(others)
    odd = [name for name in names if name not in known]
    more = f" and {len(odd) - 3} more" if len(odd) > 3 else ""
    return f"{word} {', '.join(map(repr, odd[:3]))}{more}" if odd else ""
