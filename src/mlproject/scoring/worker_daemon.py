"""The daemon from which Spark forks its Python workers: what they all import is imported once here.

Spark starts it as `python -m`, one for each environment of workers.
"""

import importlib
import os
import runpy

if os.environ.get("MLPROJECT_WORKERS") == "onnxruntime":
    for name in (
        "mlflow.pyfunc",
        "onnxruntime",
        "PIL.Image",
        "PIL.JpegImagePlugin",
        "deltalake",
        "pyarrow.parquet",
        "mlproject.scoring.prediction_files",
        "pyspark.sql.pandas.types",
        "pandas",
    ):
        importlib.import_module(name)
runpy.run_module("pyspark.daemon", run_name="__main__", alter_sys=True)
