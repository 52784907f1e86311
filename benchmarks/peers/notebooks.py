"""The network as the reference notebooks run it: usual transforms, eager torch or Keras `predict`.

Source: Databricks, Deep learning model inference workflow (notebooks for PyTorch and Keras).
"""

import io
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np
from PIL import Image

from peers import networks
from peers.networks import Predict

BATCH_IMAGES = 32
Probabilities = Callable[[Sequence[bytes]], np.ndarray]


@cache
def network(folder: str) -> Predict:
    """Encoded images -> labels and scores, by a downloaded version; loaded once in a process."""
    config, labels = networks.version_config(folder), networks.version_labels(folder)
    make = _torch if config["framework"] == "torch" else _keras
    probabilities = make(folder, config)

    def predict(contents: Sequence[bytes]) -> tuple[list[str], list[float]]:
        starts = range(0, len(contents), BATCH_IMAGES)
        batches = [probabilities(contents[start : start + BATCH_IMAGES]) for start in starts]
        return networks.top_1(batches, labels)

    return predict


def _torch(folder: str, config: dict[str, Any]) -> Probabilities:
    import torch
    from torchvision import transforms

    module = networks.torch_module(folder)
    transform = transforms.Compose(
        [
            transforms.Resize(config["resize"]),
            transforms.CenterCrop(config["crop"]),
            transforms.ToTensor(),
            transforms.Normalize(config["mean"], config["std"]),
        ]
    )

    def probabilities(contents: Sequence[bytes]) -> np.ndarray:
        pixels = torch.stack([transform(_rgb(content)) for content in contents])
        with torch.no_grad():
            found: np.ndarray = torch.softmax(module(pixels), dim=1).numpy()
        return found

    return probabilities


def _keras(folder: str, config: dict[str, Any]) -> Probabilities:
    model = networks.keras_model(folder)
    mean, std = np.float32(config["mean"]), np.float32(config["std"])

    def square(content: bytes) -> np.ndarray:
        image = _rgb(content)
        scale = config["resize"] / min(image.size)
        size = (round(image.width * scale), round(image.height * scale))
        left, top = ((side - config["crop"]) // 2 for side in size)
        box = (left, top, left + config["crop"], top + config["crop"])
        return np.asarray(image.resize(size, Image.Resampling.BILINEAR).crop(box), np.float32)

    def probabilities(contents: Sequence[bytes]) -> np.ndarray:
        pixels = np.stack([square(content) for content in contents])
        found: np.ndarray = model.predict((pixels / 255 - mean) / std, verbose=0)
        return found

    return probabilities


def _rgb(content: bytes) -> Image.Image:
    return Image.open(io.BytesIO(content)).convert("RGB")
