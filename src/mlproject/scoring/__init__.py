"""Images and a model version become predictions: what is pending, micro-batches, workers.

Other packages import the modules of `__all__`; the others are private to this one.
"""

__all__ = [
    "batch_scoring",
    "coverage",
    "decision",
    "micro_batches",
    "scorer",
    "scoring_runs",
    "workers",
]
