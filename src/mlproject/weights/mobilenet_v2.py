"""The shapes of MobileNetV2: finds width and classes from the shapes of its arrays."""

from collections import Counter
from collections.abc import Sequence

from mlproject.errors import UserError, first_line

# Expansion, channels and repeats of the inverted residual stages.
# Source: Sandler et al. 2018, MobileNetV2, table 2.
_STAGES = ((1, 16, 1), (6, 24, 2), (6, 32, 3), (6, 64, 4), (6, 96, 3), (6, 160, 3), (6, 320, 1))
_STEM_CHANNELS = 32  # Source: the same table
_LAST_CHANNELS = 1280  # Source: the same table

# Widths that are recognised: the published ones first, then each multiple of 0.05 up to 2.
# Source: keras.applications.mobilenet_v2 (0.35 to 1.4), torchvision (1.0).
WIDTHS = (1.0, 0.35, 0.5, 0.75, 1.3, 1.4, *(n / 20 for n in range(2, 41)))


def recognise(spec: str, shapes: Sequence[tuple[int, ...]]) -> tuple[int, float]:
    """Classes and width of the MobileNetV2 whose arrays have these shapes, in any order.

    Convolution kernels have four dimensions, in the order of Keras or torch; the head has two.

    Raises:
        UserError: No width has these convolutions, or there is not one head.
    """
    width = width_of(shapes)
    if width is None:
        count = sum(len(shape) == 4 for shape in shapes)
        raise misfit(spec, f"no width has the shapes of its {count} convolutions")
    heads = [shape for shape in shapes if len(shape) == 2]
    features = _last_channels(width)
    if len(heads) != 1 or features not in heads[0]:
        raise misfit(spec, f"it has {len(heads)} dense layers, not one of {features} features")
    return heads[0][0] if heads[0][1] == features else heads[0][1], width


def width_of(shapes: Sequence[tuple[int, ...]]) -> float | None:
    """The width of the MobileNetV2 that has these convolutions; None = no width has them."""
    kernels = Counter(tuple(sorted(shape)) for shape in shapes if len(shape) == 4)
    return next((width for width in WIDTHS if _kernels(width) == kernels), None)


def misfit(spec: str, detail: str) -> UserError:
    """The error for weights of another network."""
    return UserError(
        f"Weights {spec!r} do not fit MobileNetV2 with a classification head: {detail}."
    )


def no_download(error: Exception, suffixes: Sequence[str]) -> UserError:
    """The error for weights that a framework could not download."""
    detail = first_line(error).rstrip(".")
    return UserError(
        f"The download of the ImageNet weights failed ({detail}). Try again with network "
        f"access, or name a file that ends in {', '.join(suffixes)}."
    )


def _divisible(channels: float) -> int:
    """Channels rounded to a multiple of 8, and down by a tenth at most.

    Source: `_make_divisible` of torchvision.models._utils, the same in keras.applications.
    """
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded


def _kernels(width: float) -> Counter[tuple[int, ...]]:
    """Number of convolution kernels of each shape, with sorted dimensions.

    Sorting makes (H, W, in, out) of Keras and (out, in, H, W) of torch equal.
    """
    channels = _divisible(_STEM_CHANNELS * width)
    shapes = [(3, 3, 3, channels)]
    for expansion, base, repeats in _STAGES:
        output = _divisible(base * width)
        for _ in range(repeats):
            inner = channels * expansion
            if expansion > 1:
                shapes.append((1, 1, channels, inner))
            shapes += [(3, 3, 1, inner), (1, 1, inner, output)]
            channels = output
    shapes.append((1, 1, channels, _last_channels(width)))
    return Counter(tuple(sorted(shape)) for shape in shapes)


def _last_channels(width: float) -> int:
    return _divisible(_LAST_CHANNELS * max(1.0, width))
