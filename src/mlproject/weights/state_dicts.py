"""State dicts: which arrays of a file are those of a network, whatever stands before their names.

Training scripts save a state dict in other dicts (`model`, `state_dict`, `ema`), and wrappers of a
network put words before its names (`module.`, `_orig_mod.`, `backbone.`). Both are levels of one
tree, so no list of such words is needed: the network is the subtree that has its names.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from mlproject.errors import UserError

# A moving average of the weights. Source: timm, torchvision's references, ema_pytorch.
_AVERAGE = re.compile(r"(^|[._])(ema|shadow)([._]|$)", re.IGNORECASE)

Arrays = Mapping[str, Any]  # by name; the values have a shape


def named_arrays(content: Any, path: str = "") -> dict[str, Any]:
    """The arrays in nested mappings, by the keys that lead to them, joined with dots."""
    if isinstance(content, Mapping):
        found: dict[str, Any] = {}
        for key, value in content.items():
            found |= named_arrays(value, f"{path}.{key}" if path else str(key))
        return found
    return {path: content} if path and hasattr(content, "shape") else {}


def without_counters(arrays: Arrays) -> dict[str, Any]:
    """The arrays but for scalars, which count batches or averages: a file may lack them."""
    return {name: array for name, array in arrays.items() if len(array.shape)}


def subtrees(arrays: Arrays) -> dict[str, dict[str, Any]]:
    """Prefix -> the arrays under it, by the rest of their names; "" = all arrays."""
    found: dict[str, dict[str, Any]] = {"": dict(arrays)}
    for name, array in arrays.items():
        for dot in re.finditer(r"\.", name):
            found.setdefault(name[: dot.start()], {})[name[dot.end() :]] = array
    return found


def of_network(spec: str, arrays: Arrays, names: Sequence[str]) -> tuple[dict[str, Any], str]:
    """The arrays that have exactly these names, and which of several networks they are, as text.

    Counters beside them are kept. A moving average is preferred, as timm does (`load_state_dict`
    with `use_ema`). No arrays = no subtree has these names.

    Raises:
        UserError: Several subtrees have these names, and not just one is a moving average.
    """
    wanted = set(names)
    fitting = {
        prefix: state
        for prefix, state in subtrees(arrays).items()
        if set(without_counters(state)) == wanted
    }
    averages = [prefix for prefix in fitting if _AVERAGE.search(prefix)]
    if len(fitting) <= 1:
        return next(iter(fitting.values()), {}), ""
    if len(averages) != 1:
        raise UserError(
            f"Weights {spec!r} contain {len(fitting)} networks: "
            f"{', '.join(map(repr, fitting))}. Save one of them in a file of its own."
        )
    [chosen] = averages
    others = ", ".join(repr(prefix) for prefix in fitting if prefix != chosen)
    note = f"The weights are the moving average {chosen!r} of the file, which also has {others}"
    return fitting[chosen], note
