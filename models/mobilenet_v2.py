"""A model version: MobileNetV2 of Keras or PyTorch, from image bytes to label, scores and error.

MLflow executes this file when the version is logged ("models from code") and each time it is
loaded. What it needs travels in the version: the model config and the artifacts `weights`
(.weights.h5 of Keras, safetensors of PyTorch), `network` (the same network in ONNX; absent with
engine native), `labels` (text, one per line) and `inference` (a folder of code). With engine
onnxruntime no framework is imported, else one only: that of the config.
"""

import contextlib
import hashlib
import importlib.util
import itertools
import json
import os
import sys
import threading
import warnings
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd

# One lock for all versions of a process: MLflow executes this file as a new module at each load.
_loading = sys.modules.setdefault("mlproject_loading", threading.Lock())


class MobileNetV2(mlflow.pyfunc.PythonModel):
    """Predictions for encoded images; the network is loaded once per process and device."""

    def load_context(self, context):
        """Reads the artifacts of the version and loads the network, unless this process has it."""
        self.config = dict(context.model_config)
        onnx = self.config["engine"] == "onnxruntime"
        self.devices, self.load = LOADERS["onnxruntime" if onnx else self.config["framework"]]
        self.file = Path(context.artifacts["network" if onnx else "weights"])
        self.labels = Path(context.artifacts["labels"]).read_text(encoding="utf-8").splitlines()
        self.inference = load_inference_code(Path(context.artifacts["inference"]))
        identity = json.dumps([self.config, self.labels], sort_keys=True)
        self.key = (self.inference.file_sha256(self.file), identity)
        # Each image has an error code for what Pillow warns about.
        warnings.filterwarnings("ignore", module=r"PIL\.")
        self.network()

    def predict(self, context, model_input: pd.DataFrame, params=None):
        """One row for each image: label, score, top_labels, top_scores, error.

        Args:
            context: Unused: `load_context` has read it.
            model_input: Column `content`: encoded images as any type of bytes; else none.
            params: Unused.
        """
        forward, batches = self.network()
        contents = list(model_input["content"])
        columns = self.inference.predictions(contents, forward, self.labels, self.config, **batches)
        return pd.DataFrame(columns, dtype=object).astype({"score": "float64"})

    def network(self):
        """The function on the device of the running task, and how `predictions` calls it there."""
        inference = self.inference
        index = inference.task_device_index(self.devices(inference))
        key, arguments = (*self.key, index), (self.file, len(self.labels), self.config, index)
        forward = inference.cached(key, lambda: self.load(inference, *arguments))
        if index is None:
            return forward, {}
        size = self.config["device_batch_size"] or inference.device_batch_size(
            self.config["crop"], inference.cuda_memory_bytes(index)
        )
        forward = inference.within_memory(forward, key, size)
        return forward, {"threads": inference.task_cores(), "device_batch": size}


def onnx_devices(inference):
    """The number of accelerators that ONNX Runtime can use."""
    import onnxruntime

    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        return 0
    return inference.cuda_devices()


def keras_devices(inference):
    """The number of accelerators that TensorFlow sees."""
    # Set before TensorFlow is imported: Keras uses TensorFlow, which allocates memory of an
    # accelerator only as needed, because several workers may share it.
    os.environ["KERAS_BACKEND"] = "tensorflow"
    os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
    import tensorflow as tf

    return len(tf.config.list_physical_devices("GPU"))


def torch_devices(inference):
    """The number of accelerators that torch sees."""
    import torch

    return torch.cuda.device_count()


def load_onnx(inference, network, classes, config, index):
    """A function: uint8 images (N, H, W, 3) -> probabilities (N, K); index None = CPU."""
    import onnxruntime

    providers = ["CPUExecutionProvider"]
    if index is not None:
        onnxruntime.preload_dlls()  # CUDA and cuDNN of pip packages
        providers.insert(0, ("CUDAExecutionProvider", {"device_id": index, **CUDA_OPTIONS}))
    threads = int(os.environ.get("OMP_NUM_THREADS", "0"))  # 0 = all cores
    session = inference.onnx_session(network, threads, providers)
    if len(session.get_providers()) < len(providers):  # a library of CUDA or cuDNN is missing
        raise RuntimeError(f"CUDA error: ONNX Runtime cannot use device {index}: see its log")
    [images] = session.get_inputs()
    return lambda batch: session.run(None, {images.name: batch})[0]


def load_keras(inference, weights, classes, config, index):
    """A compiled function: uint8 images (N, H, W, 3) -> probabilities (N, K); index None = CPU."""
    import tensorflow as tf

    device = "/CPU:0" if index is None else f"/GPU:{index}"
    if index is not None:
        tf.config.experimental.enable_tensor_float_32_execution(False)  # as `use_tf32` below
    shape = (config["crop"], config["crop"], 3)
    mean, std = np.float32(config["mean"]), np.float32(config["std"])
    with tf.device(device):
        network = keras_network(weights, classes, config)

    # A fixed signature with a free batch size is traced once, for batches of every size.
    @tf.function(input_signature=[tf.TensorSpec((None, *shape), tf.uint8)])
    def probabilities(images):
        with tf.device(device):
            return network((tf.cast(images, tf.float32) / 255.0 - mean) / std, training=False)

    def forward(images):
        with tf.device(device):  # else it is copied to the first accelerator
            return probabilities(tf.constant(images)).numpy()

    forward(np.zeros((1, *shape), np.uint8))  # traces it now instead of in the first batch
    return forward


def keras_network(weights, classes, config):
    """The Keras model: normalised images (N, H, W, 3) -> probabilities (N, K)."""
    import keras

    shape = (config["crop"], config["crop"], 3)
    network = keras.applications.MobileNetV2(
        weights=None, classes=classes, alpha=config["width"], input_shape=shape
    )
    network.load_weights(weights)
    return network


def load_torch(inference, weights, classes, config, index):
    """A function: uint8 images (N, H, W, 3) -> probabilities (N, K); index None = CPU.

    On an accelerator convolutions and the classifier compute in float16.
    """
    import torch

    device = "cpu" if index is None else f"cuda:{index}"
    if "OMP_NUM_THREADS" in os.environ:  # torch may be loaded before it was set
        torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    network = torch_network(weights, classes, config)
    network = fused(network).to(device, memory_format=torch.channels_last)
    mean, std = (
        torch.tensor(config[name], device=device).view(1, 3, 1, 1) for name in ("mean", "std")
    )

    def precision():
        if index is None:
            return contextlib.nullcontext()
        return torch.autocast("cuda", dtype=torch.float16)

    def forward(images):
        with torch.inference_mode(), precision():
            # (N, H, W, 3) -> (N, 3, H, W) without a copy: these strides are channels_last.
            pixels = torch.from_numpy(images).to(device).permute(0, 3, 1, 2)
            logits = network((pixels.float() / 255.0 - mean) / std)
            return torch.softmax(logits.float(), dim=1).cpu().numpy()

    return forward


def torch_network(weights, classes, config):
    """The torch module in inference mode: normalised images (N, 3, H, W) -> logits (N, K)."""
    import torchvision
    from safetensors.torch import load_file

    network = torchvision.models.mobilenet_v2(num_classes=classes, width_mult=config["width"])
    network.load_state_dict(load_file(weights))
    return network.eval()


def fused(network):
    """The same network with each batch norm folded into the convolution before it."""
    import torch

    for parent in list(network.modules()):
        children = list(parent.named_children())
        for (name, layer), (next_name, next_layer) in itertools.pairwise(children):
            if isinstance(layer, torch.nn.Conv2d) and isinstance(next_layer, torch.nn.BatchNorm2d):
                setattr(parent, name, torch.nn.utils.fusion.fuse_conv_bn_eval(layer, next_layer))
                setattr(parent, next_name, torch.nn.Identity())
    return network


def load_inference_code(folder):
    """The package in `folder`, loaded under a name that contains the hash of all its files.

    Versions in one process share equal code and never different code: a version cannot run the code
    of another, as it can with `code_paths`. Source: mlflow issues 4061, 12377, 15941.
    """
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.py")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    name = f"mlproject_inference_{digest.hexdigest()}"
    with _loading:
        if name not in sys.modules:
            spec = importlib.util.spec_from_file_location(
                name, folder / "__init__.py", submodule_search_locations=[str(folder)]
            )
            sys.modules[name] = importlib.util.module_from_spec(spec)
            try:
                spec.loader.exec_module(sys.modules[name])
            except BaseException:  # also after a stop no half-loaded module may remain
                for loaded in [n for n in sys.modules if n == name or n.startswith(f"{name}.")]:
                    del sys.modules[loaded]
                raise
        return sys.modules[name]


# Source: ONNX Runtime, CUDA Execution Provider.
CUDA_OPTIONS = {
    # The default tries all algorithms for each new number of images; the last batch has another.
    "cudnn_conv_algo_search": "HEURISTIC",
    "arena_extend_strategy": "kSameAsRequested",  # the default takes powers of two of memory
    "use_tf32": "0",  # products of 10 bits: a version in float32 predicts the same on each device
}

# The number of accelerators, and the network on one of them, by engine or framework.
LOADERS = {
    "onnxruntime": (onnx_devices, load_onnx),
    "keras": (keras_devices, load_keras),
    "torch": (torch_devices, load_torch),
}

mlflow.models.set_model(MobileNetV2())
