"""Keeps a Delta table of image predictions up to date with an image folder and an MLflow registry.

Each command is a function here, which takes plain values, returns a frozen result and prints
nothing. It is imported when it is first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlproject.erasure.requests import erase as erase
    from mlproject.erasure.requests import plan_erasure as plan_erasure
    from mlproject.gates.promotion import promote as promote
    from mlproject.ingestion.ingest import ingest as ingest
    from mlproject.lake.maintenance import maintain as maintain
    from mlproject.reporting.report import report as report
    from mlproject.rollout.serving import current as current
    from mlproject.training.trained_versions import train as train
    from mlproject.versions.ready_weights import register as register

_MODULES = {
    "ingest": "mlproject.ingestion.ingest",
    "train": "mlproject.training.trained_versions",
    "register": "mlproject.versions.ready_weights",
    "promote": "mlproject.gates.promotion",
    "report": "mlproject.reporting.report",
    "erase": "mlproject.erasure.requests",
    "plan_erasure": "mlproject.erasure.requests",
    "maintain": "mlproject.lake.maintenance",
    "current": "mlproject.rollout.serving",
}

__all__ = [
    "current",
    "erase",
    "ingest",
    "maintain",
    "plan_erasure",
    "promote",
    "register",
    "report",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'mlproject' has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
