"""Checks that a version must pass before an alias or stage is moved to it.

`checks` measures, `verdicts` decides from what was measured, `summary` formats both.
Other packages import the modules of `__all__`; the others are private to this one.
"""

__all__ = ["approvals", "checks", "comparison", "summary", "verdicts"]
