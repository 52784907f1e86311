"""The network of a version as a plain function, which a peer calls in its workers.

With engine onnxruntime it is the network that `score` runs too, in the same batches. With engine
native it is the framework's own model, as the framework's documentation runs it. Both decode with
the code of the version, which is faster than the usual transforms.
"""

import importlib
import json
import sys
import threading
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

Predict = Callable[[Sequence[bytes]], tuple[list[str], list[float]]]
Forward = Callable[[np.ndarray], np.ndarray]


def version_config(folder: str) -> dict[str, Any]:
    """The model config of a downloaded version."""
    config: dict[str, Any] = json.loads(Path(folder, "config.json").read_text(encoding="utf-8"))
    return config


def version_labels(folder: str) -> list[str]:
    """The labels of a downloaded version, in the order of the network's outputs."""
    return Path(folder, "artifacts", "labels.txt").read_text(encoding="utf-8").splitlines()


_loading = threading.Lock()  # threads of one process share a network


def network(folder: str) -> Predict:
    """Encoded images -> labels and scores, by a downloaded version; loaded once in a process."""
    with _loading:
        return _network(folder)


@cache
def _network(folder: str) -> Predict:
    config, labels = version_config(folder), version_labels(folder)
    inference, forward = inference_code(folder), load(folder)

    def predict(contents: Sequence[bytes]) -> tuple[list[str], list[float]]:
        batches = []
        for start in range(0, len(contents), config["batch_size"]):
            batch = contents[start : start + config["batch_size"]]
            images, errors = inference.decode_all(batch, config)
            assert not any(errors), errors
            batches.append(forward(images))
        return top_1(batches, labels)

    return predict


def top_1(batches: Sequence[np.ndarray], labels: Sequence[str]) -> tuple[list[str], list[float]]:
    """The most likely label of each image, and its score, from probabilities (N, K) by batch."""
    best = [index for batch in batches for index in batch.argmax(axis=1)]
    scores = [float(score) for batch in batches for score in batch.max(axis=1)]
    return [labels[index] for index in best], scores


def inference_code(folder: str) -> Any:
    """The code that decodes, as the version carries it."""
    path = str(Path(folder, "artifacts"))
    if path not in sys.path:
        sys.path.insert(0, path)
    return importlib.import_module("inference")


@cache
def load(folder: str) -> Forward:
    """uint8 images (N, H, W, 3) -> probabilities (N, K), with one thread; loaded once."""
    config = version_config(folder)
    if config["engine"] == "onnxruntime":
        return onnx_forward(folder)
    mean, std = np.float32(config["mean"]), np.float32(config["std"])
    if config["framework"] == "torch":
        import torch

        module = torch_module(folder)

        def forward(images: np.ndarray) -> np.ndarray:
            # (N, H, W, 3) -> (N, 3, H, W)
            pixels = ((images / np.float32(255) - mean) / std).transpose(0, 3, 1, 2)
            with torch.inference_mode():
                logits = module(torch.from_numpy(np.ascontiguousarray(pixels)))
                probabilities: np.ndarray = torch.softmax(logits, dim=1).numpy()
            return probabilities

        return forward
    model = keras_model(folder)
    # `predict` is for many batches, and costs more for one. Source: Keras, Model.predict.
    return lambda images: model.predict_on_batch((images / np.float32(255) - mean) / std)


def onnx_forward(folder: str) -> Forward:
    """uint8 images (N, H, W, 3) -> probabilities (N, K), by ONNX Runtime."""
    network = Path(folder, "artifacts", "network.onnx")
    session = inference_code(folder).onnx_session(network, threads=1)
    name = session.get_inputs()[0].name

    def forward(images: np.ndarray) -> np.ndarray:
        probabilities: np.ndarray = session.run(None, {name: images})[0]
        return probabilities

    return forward


def torch_module(folder: str) -> Any:
    """The network as torchvision makes it, eager: (N, 3, H, W) -> logits (N, K)."""
    import torch
    import torchvision
    from safetensors.torch import load_file

    torch.set_num_threads(1)
    config = version_config(folder)
    module = torchvision.models.mobilenet_v2(
        num_classes=len(version_labels(folder)), width_mult=config["width"]
    )
    [weights] = Path(folder, "artifacts").glob("*.safetensors")
    module.load_state_dict(load_file(weights))
    return module.eval()


def keras_model(folder: str) -> Any:
    """The network as Keras makes it: normalised images (N, H, W, 3) -> probabilities (N, K)."""
    import keras

    config = version_config(folder)
    model = keras.applications.MobileNetV2(
        weights=None,
        classes=len(version_labels(folder)),
        alpha=config["width"],
        input_shape=(config["crop"], config["crop"], 3),
    )
    [weights] = Path(folder, "artifacts").glob("*.weights.h5")
    model.load_weights(weights)
    return model
