"""An alias or stage gets its serving version: table `rollouts`, plan, reconciliation, history.

Other packages import the modules of `__all__`; the others are private to this one.
"""

__all__ = [
    "decision",
    "history",
    "ledger",
    "planning",
    "reconciliation",
    "rescoring",
    "runs",
    "serving",
    "version_scoring",
]
