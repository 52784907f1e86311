"""A model around another: where that one raises on an image, only this image gets an error.

MLflow runs this file in Spark's workers, as it runs those in models/; it imports nothing of ours.
Scoring uses it once a version has raised. The version is the artifact `version`.
"""

import re
import traceback
from contextlib import suppress
from typing import Any

import mlflow
import pandas as pd

COLUMNS = ["label", "score", "top_labels", "top_scores", "error"]


class GuardedModel(mlflow.pyfunc.PythonModel):  # type: ignore[misc]
    """What the version returns, half by half down to the image where it raises on a batch."""

    def load_context(self, context: Any) -> None:
        """Loads the version, which may raise: then nothing can be predicted."""
        self.version = mlflow.pyfunc.load_model(context.artifacts["version"])
        self.failed = context.model_config["failed"]
        self.machine_faults = re.compile(context.model_config["machine_faults"], re.MULTILINE)

    def predict(self, context: Any, model_input: pd.DataFrame, params: Any = None) -> pd.DataFrame:
        """One row for each image; those on which the version raises have the error `failed`.

        A fault of the machine is no result of an image: it is raised.
        """
        if len(model_input) < 2:
            return self._predict_one(model_input)
        with suppress(Exception):  # whatever a version raises
            return self._predict(model_input)
        # Not in an `except`: its traceback holds what the version had in memory.
        middle = len(model_input) // 2
        halves = model_input.iloc[:middle], model_input.iloc[middle:]
        return pd.concat([self.predict(context, half) for half in halves], ignore_index=True)

    def _predict_one(self, row: pd.DataFrame) -> pd.DataFrame:
        try:
            return self._predict(row)
        except Exception as error:
            if self.machine_faults.search("".join(traceback.format_exception(error))):
                raise
            return pd.DataFrame([("", float("nan"), [], [], self.failed)], columns=COLUMNS)

    def _predict(self, images: pd.DataFrame) -> pd.DataFrame:
        returned = self.version.predict(images)[COLUMNS]
        if len(returned) != len(images):
            raise ValueError(f"the model returned {len(returned)} rows for {len(images)} images")
        return returned


mlflow.models.set_model(GuardedModel())
