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
    from mlproject.ingestion.sources import sources as sources
    from mlproject.lake.maintenance import maintain as maintain
    from mlproject.quantization.quantized_versions import quantize as quantize
    from mlproject.replays.replaying import replay as replay
    from mlproject.reporting.report import report as report
    from mlproject.rollout.history import history as history
    from mlproject.rollout.planning import plan as plan
    from mlproject.rollout.rescoring import rescore as rescore
    from mlproject.rollout.serving import current as current
    from mlproject.scoring.scoring_runs import score as score
    from mlproject.service.health import health as health
    from mlproject.service.watching import watch as watch
    from mlproject.training.trained_versions import train as train
    from mlproject.versions.ready_weights import register as register

_MODULES = {
    "current": "mlproject.rollout.serving",
    "erase": "mlproject.erasure.requests",
    "health": "mlproject.service.health",
    "history": "mlproject.rollout.history",
    "ingest": "mlproject.ingestion.ingest",
    "maintain": "mlproject.lake.maintenance",
    "plan": "mlproject.rollout.planning",
    "plan_erasure": "mlproject.erasure.requests",
    "promote": "mlproject.gates.promotion",
    "quantize": "mlproject.quantization.quantized_versions",
    "register": "mlproject.versions.ready_weights",
    "replay": "mlproject.replays.replaying",
    "report": "mlproject.reporting.report",
    "rescore": "mlproject.rollout.rescoring",
    "score": "mlproject.scoring.scoring_runs",
    "sources": "mlproject.ingestion.sources",
    "train": "mlproject.training.trained_versions",
    "watch": "mlproject.service.watching",
}

__all__ = list(_MODULES)


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'mlproject' has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
