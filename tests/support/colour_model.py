"""A tiny real version for tests of scoring: it predicts the strongest of red, green and blue.

Models-from-code like those in models/, without a framework. In its config, `reverse` reverses the
labels, and `fault` is its fault where blue is strongest, with the prefix `all_` on every image.
Once the file `mended` exists it has none. The faults of `MACHINE` are of every image; one that ends
with `_once` makes that file.
"""

import ctypes
import errno
import io
import os
import resource
import signal
import time
from pathlib import Path

import mlflow
import pandas as pd
from PIL import Image

LABELS = ("red", "green", "blue")
MACHINE = {
    "memory": MemoryError(),
    "cuda": RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    "disk": OSError(errno.EIO, "Input/output error"),
}


class ColourModel(mlflow.pyfunc.PythonModel):
    """Shares of the three colours as probabilities."""

    def load_context(self, context):
        self.labels = LABELS[::-1] if context.model_config["reverse"] else LABELS
        self.mended = Path(context.model_config.get("mended") or "/nowhere")
        self.fault = "" if self.mended.exists() else context.model_config.get("fault", "")
        if self.fault == "unloadable":
            raise RuntimeError("no such thing")

    def predict(self, context, model_input, params=None):
        if self.fault == "always":
            raise ValueError("no photos, please")
        if error := MACHINE.get(self.fault.removesuffix("_once")):
            if self.fault.endswith("_once"):
                self.mended.touch()
            raise error
        rows = pd.DataFrame([self._row(content) for content in model_input["content"]])
        if self.fault == "rows":
            return rows.iloc[:-1]
        return rows.drop(columns="score") if self.fault == "columns" else rows

    def _row(self, content):
        try:
            pixel = Image.open(io.BytesIO(content)).convert("RGB").resize((1, 1)).getpixel((0, 0))
        except OSError:
            empty = {"label": "", "score": float("nan"), "top_labels": [], "top_scores": []}
            return {**empty, "error": "undecodable"}
        ranked = sorted(
            zip(pixel, self.labels, strict=True), key=lambda pair: pair[0], reverse=True
        )
        scores = [value / max(1, sum(pixel)) for value, _ in ranked]
        labels = [label for _, label in ranked]
        if ranked[0][0] == pixel[2] or self.fault.startswith("all_"):
            scores = self._wrong(scores)
        return {
            "label": labels[0],
            "score": scores[0],
            "top_labels": labels,
            "top_scores": scores,
            "error": "",
        }

    def _wrong(self, scores):
        fault = self.fault.removeprefix("all_")
        if fault == "raises":
            raise ValueError("no blue, please")
        if fault == "greedy":
            _exhaust_memory()
        if fault == "crashes":
            ctypes.string_at(0)
        if fault == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if fault == "hangs":
            time.sleep(3600)
        if fault == "nan":
            return [float("nan")] * len(scores)
        return [2 * score for score in scores] if fault == "sum" else scores


def _exhaust_memory():
    """Allocates all memory of a process with a limit."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + 2**28, before[1]))
    try:
        taken = []
        while True:
            taken.append(bytearray(2**24))
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


mlflow.models.set_model(ColourModel())
