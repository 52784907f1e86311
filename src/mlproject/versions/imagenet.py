"""The labels of ImageNet's 1000 classes, in the order of the outputs of ImageNet weights."""

import importlib.util
from pathlib import Path

from mlproject.errors import UserError


def labels() -> list[str]:
    """1000 unique labels. Read from torchvision's own list, without importing torch.

    Raises:
        UserError: torchvision is not installed.
    """
    package = importlib.util.find_spec("torchvision")
    if package is None or package.origin is None:
        raise UserError(
            "ImageNet's labels come with torchvision, which is not installed. Name a text file "
            "instead, one label a line: -P labels=FILE"
        )
    file = Path(package.origin).parent / "models" / "_meta.py"
    spec = importlib.util.spec_from_file_location("torchvision_meta", file)
    if spec is None or spec.loader is None:
        raise UserError(f"torchvision has no list of labels at {str(file)!r}")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return list(module._IMAGENET_CATEGORIES)
