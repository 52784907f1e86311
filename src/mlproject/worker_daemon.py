"""The process that Spark forks its Python workers from: what they all need is done once here.

Spark runs this module, one process for each environment of workers. MLPROJECT_IMPORTS names the
modules to import; what is missing is left to the workers, whose errors are reported. Nothing that
starts threads at its import belongs there, such as ONNX Runtime, TensorFlow and torch: a forked
process has none of them. Source: Spark, PythonWorkerFactory.startDaemon.
"""

import gc
import importlib
import os
import runpy
import sys
from contextlib import suppress

if __name__ == "__main__":
    gc.disable()  # an import makes nothing to collect, and looking for it takes a tenth of the time
    for name in os.environ.get("MLPROJECT_IMPORTS", "").split():
        with suppress(Exception):
            importlib.import_module(name)
    # When MLflow loads a version, it compares the requirements with what is installed. To list that
    # takes half a second; MLflow keeps the list.
    requirements = sys.modules.get("mlflow.utils.requirements_utils")
    with suppress(Exception):
        if requirements is not None:
            requirements.warn_dependency_requirement_mismatches(["mlflow"])
    # Spark has a worker collect after each task: what was imported is left out, and stays shared.
    gc.freeze()
    gc.enable()
    runpy.run_module("pyspark.daemon", run_name="__main__", alter_sys=True)
