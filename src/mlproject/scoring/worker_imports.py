"""What the workers of a version need, done once in the process that they are forked from.

See `integrations.worker_daemon`. Not imported here are ONNX Runtime, TensorFlow and torch, which
start threads when they are imported: a forked process would be without them.
"""

import mlflow.pyfunc
from mlflow.utils.requirements_utils import warn_dependency_requirement_mismatches

from mlproject.scoring import prediction_files

__all__ = ["mlflow", "prediction_files"]

# When MLflow loads a version it compares the requirements with what is installed. The list of that
# takes half a second, and MLflow keeps it.
warn_dependency_requirement_mismatches(["mlflow"])
