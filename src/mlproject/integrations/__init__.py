"""Outside systems, one module each: Spark, Java, MLflow, object storage, processes.

Other packages import the modules of `__all__`; the others are private to this one.
"""

__all__ = [
    "framework_process",
    "java",
    "local_files",
    "mlflow_tracking",
    "object_storage",
    "outages",
    "spark_session",
    "spark_start",
]
