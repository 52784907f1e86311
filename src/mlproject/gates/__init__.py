"""Checks that a version must pass before an alias or stage is moved to it.

`promotion` moves the alias or stage, `checks` measures, `verdicts` decides from what was measured,
`summary` and `gate_page` format both.
Other packages import the modules of `__all__`; the others are private to this one.
"""

__all__ = ["approvals", "checks", "comparison", "promotion", "summary", "verdicts"]
