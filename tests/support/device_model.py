"""A version for tests of devices: it predicts the device that it would compute on, without any.

Models-from-code like those in models/. The label of each image is JSON: the addresses that Spark
gave the task, the device that `inference` chooses of four, the cores that decode, and the rows of
the batch. For each image it sleeps the `pause_s` of its config.
"""

import json
import time

import mlflow
import pandas as pd
from pyspark import TaskContext

from mlproject import inference

DEVICES = 4


class DeviceModel(mlflow.pyfunc.PythonModel):
    """Predicts where it runs."""

    def load_context(self, context):
        self.pause_s = (context.model_config or {}).get("pause_s", 0)

    def predict(self, context, model_input, params=None):
        time.sleep(self.pause_s * len(model_input))
        assigned = TaskContext.get().resources().get("gpu")
        label = json.dumps(
            {
                "addresses": assigned.addresses if assigned else [],
                "device": inference.task_device_index(DEVICES),
                "cores": inference.task_cores(),
                "rows": len(model_input),
            }
        )
        row = {"label": label, "score": 1.0, "top_labels": [label], "top_scores": [1.0]}
        return pd.DataFrame([{**row, "error": ""}] * len(model_input))


mlflow.models.set_model(DeviceModel())
