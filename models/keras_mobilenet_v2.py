"""A model version: MobileNetV2 in Keras, from image bytes to label, score, top labels and error.

MLflow executes this file when the version is logged ("models from code") and each time it is
loaded. What it needs besides the framework travels in the version: the model config and the
artifacts `weights` (.weights.h5), `labels` (text, one per line) and `inference` (a folder of code).
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

# One lock for all versions of a process: MLflow executes this file as a new module at each load.
_loading = sys.modules.setdefault("mlproject_loading", threading.Lock())


class KerasMobileNetV2(mlflow.pyfunc.PythonModel):
    """Predictions for encoded images; the network is loaded once per process and device."""

    def load_context(self, context):
        """Reads the artifacts of the version and loads the network, unless this process has it."""
        # Set before TensorFlow is imported: Keras uses TensorFlow, which allocates memory of an
        # accelerator only as needed, because several workers may share it.
        os.environ["KERAS_BACKEND"] = "tensorflow"
        os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
        self.config = dict(context.model_config)
        self.weights = Path(context.artifacts["weights"])
        self.labels = Path(context.artifacts["labels"]).read_text(encoding="utf-8").splitlines()
        self.inference = load_inference_code(Path(context.artifacts["inference"]))
        identity = json.dumps([self.config, self.labels], sort_keys=True)
        self.key = (self.inference.file_sha256(self.weights), identity)
        # Each image has an error code for what Pillow warns about.
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
        """(forward, number of decoding threads) for the device of the running task."""
        import tensorflow as tf

        index = self.inference.task_device_index(len(tf.config.list_physical_devices("GPU")))
        device = "/CPU:0" if index is None else f"/GPU:{index}"
        # A CPU task has one core; with an accelerator all cores decode.
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

        # A fixed signature with a free batch size is traced once, for batches of every size.
        @tf.function(input_signature=[tf.TensorSpec((None, side, side, 3), tf.uint8)])
        def probabilities(images):
            with tf.device(device):
                return network((tf.cast(images, tf.float32) / 255.0 - mean) / std, training=False)

        def forward(images):
            return probabilities(tf.constant(images)).numpy()

        forward(
            np.zeros((1, side, side, 3), np.uint8)
        )  # traces it now instead of in the first batch
        return forward


def as_bytes(content):
    """The bytes of one image from Spark, pandas or REST; None = there are none."""
    return bytes(content) if isinstance(content, bytes | bytearray | memoryview) else None


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


mlflow.models.set_model(KerasMobileNetV2())
