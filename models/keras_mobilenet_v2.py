"""A model version: MobileNetV2 in Keras, from image bytes to label, score, top labels and error.

MLflow runs this file when the version is logged ("models from code") and each time it is loaded.
What it needs beside the framework travels in the version: artifacts `weights` (.weights.h5),
`labels` (text, one a line) and `inference` (a folder of code), and the model config.
"""

import hashlib
import importlib.util
import json
import os
import sys
import threading
import warnings
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd

# One for all versions of a process: MLflow runs this file anew, as another module, at each load.
_loading = sys.modules.setdefault("mlproject_loading", threading.Lock())


class KerasMobileNetV2(mlflow.pyfunc.PythonModel):
    """Answers for encoded images; the network is loaded once per process and device."""

    def load_context(self, context):
        """Reads what travels in the version and loads the network, unless this process has it."""
        # Set before TensorFlow's first import: Keras on TensorFlow, and of an accelerator's
        # memory no more than is used, for several workers may share one.
        os.environ["KERAS_BACKEND"] = "tensorflow"
        os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
        self.config = dict(context.model_config)
        self.weights = Path(context.artifacts["weights"])
        self.labels = Path(context.artifacts["labels"]).read_text(encoding="utf-8").splitlines()
        self.inference = load_inference_code(Path(context.artifacts["inference"]))
        identity = json.dumps([self.config, self.labels], sort_keys=True)
        self.key = (self.inference.file_sha256(self.weights), identity)
        # What Pillow warns of, an error code says, image by image.
        warnings.filterwarnings("ignore", module=r"PIL\.")
        self.network()

    def predict(self, context, model_input: pd.DataFrame, params=None):
        """One row for each image: label, score, top_labels, top_scores, error.

        Args:
            context: Unused: `load_context` has read it.
            model_input: Column `content`: encoded images, bytes or None.
            params: Unused.
        """
        forward, threads = self.network()
        contents = [as_bytes(content) for content in model_input["content"]]
        columns = self.inference.predictions(
            contents, forward, self.labels, self.config, threads=threads
        )
        return pd.DataFrame(columns, dtype=object).astype({"score": "float64"})

    def network(self):
        """This process's (forward, decoding threads) on the device of the running task."""
        import tensorflow as tf

        index = self.inference.task_device_index(len(tf.config.list_physical_devices("GPU")))
        device = "/CPU:0" if index is None else f"/GPU:{index}"
        # A CPU task has one core; beside an accelerator the cores decode.
        threads = 1 if index is None else min(8, os.cpu_count() or 1)
        key = (*self.key, device)
        return self.inference.cached(key, lambda: self.load_network(device)), threads

    def load_network(self, device):
        """A compiled function on `device`: uint8 images (N, H, W, 3) -> probabilities (N, K)."""
        import keras
        import tensorflow as tf

        side, config = self.config["crop"], self.config
        mean, std = np.float32(config["mean"]), np.float32(config["std"])
        with tf.device(device):
            network = keras.applications.MobileNetV2(
                weights=None,
                classes=len(self.labels),
                alpha=config["width"],
                input_shape=(side, side, 3),
            )
            network.load_weights(self.weights)

        # A fixed signature with a free batch size: traced once, whatever the last batch holds.
        @tf.function(input_signature=[tf.TensorSpec((None, side, side, 3), tf.uint8)])
        def probabilities(images):
            with tf.device(device):
                return network((tf.cast(images, tf.float32) / 255.0 - mean) / std, training=False)

        def forward(images):
            return probabilities(tf.constant(images)).numpy()

        forward(np.zeros((1, side, side, 3), np.uint8))  # traced now, not in the first batch
        return forward


def as_bytes(content):
    """Bytes of whatever Spark, pandas or REST gave for one image; None where there is none."""
    return bytes(content) if isinstance(content, bytes | bytearray | memoryview) else None


def load_inference_code(folder):
    """The package in `folder`, loaded under a name that holds the hash of all its files.

    Equal code is shared by all versions in a process, different code never is: a version cannot
    run another's code, as it can with `code_paths`. Source: mlflow issues 4061, 12377, 15941.
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
            except BaseException:  # a stop too must not leave half a module to the next version
                for loaded in [n for n in sys.modules if n == name or n.startswith(f"{name}.")]:
                    del sys.modules[loaded]
                raise
        return sys.modules[name]


mlflow.models.set_model(KerasMobileNetV2())
