"""The process that Spark forks its Python workers from: what they all need is done once here.

Spark runs this module, one process for each environment of workers. MLPROJECT_IMPORTS names the
modules to import; what is missing is left to the workers, whose errors are reported. Nothing that
starts threads at its import belongs there, such as ONNX Runtime, TensorFlow and torch: a forked
process has none of them. The thread of pyarrow's allocator is started anew after a fork.
Source: Spark, PythonWorkerFactory.startDaemon; jemalloc, background_thread_postfork_child.
"""

import gc
import importlib
import os
import runpy
import sys
from contextlib import suppress

if __name__ == "__main__":
    gc.disable()  # imports leave no garbage, and to look for it takes a tenth of the time
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
