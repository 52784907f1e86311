"""A tiny real version for tests of scoring: its answer is the strongest of red, green and blue.

Models-from-code like those in models/, without a framework; what it answers depends on its config.
"""

import io

import mlflow
import pandas as pd
from PIL import Image

LABELS = ("red", "green", "blue")


class ColourModel(mlflow.pyfunc.PythonModel):
    """Shares of the three colours as probabilities; `reverse` in the config turns them round."""

    def load_context(self, context):
        self.labels = LABELS[::-1] if context.model_config["reverse"] else LABELS

    def predict(self, context, model_input, params=None):
        return pd.DataFrame([self._answer(content) for content in model_input["content"]])

    def _answer(self, content):
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
        return {
            "label": labels[0],
            "score": scores[0],
            "top_labels": labels,
            "top_scores": scores,
            "error": "",
        }


mlflow.models.set_model(ColourModel())
