"""Outside systems, one module each: Spark, Java, MLflow, processes.

Other packages import the modules of `__all__`; the others are private to this one.
"""

__all__ = [
    "framework_process",
    "java",
    "mlflow_tracking",
    "outages",
    "spark_session",
    "spark_settings",
    "spark_start",
]
