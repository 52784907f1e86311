"""An alias or stage becomes the serving version: table `rollouts`, plan, reconciliation, history.

Other packages import the modules of `__all__`; the others are private to this one.
"""

__all__ = ["history", "ledger", "planning", "reconciliation", "replaying", "runs", "serving"]
