"""One row of `predictions` is predicted again, and compared with what the table has.

Other packages import the modules of `__all__`; the others are private to this one.
"""

__all__ = ["differences", "replaying"]
