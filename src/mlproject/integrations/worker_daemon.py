"""The process from which Spark forks its Python workers: it imports once what each of them needs.

Spark runs this module, one process for each environment of workers. MLPROJECT_IMPORTS names the
modules; what is missing is left to the workers, whose errors are reported.
Source: Spark, PythonWorkerFactory.startDaemon.
"""

import importlib
import os
import runpy
from contextlib import suppress

if __name__ == "__main__":
    for module in os.environ.get("MLPROJECT_IMPORTS", "").split():
        with suppress(Exception):
            importlib.import_module(module)
    runpy.run_module("pyspark.daemon", run_name="__main__", alter_sys=True)
