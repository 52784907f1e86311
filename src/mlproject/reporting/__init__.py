"""HTML pages and their templates, and the report of a lake.

Other packages import the modules of `__all__`; the others are private to this one.
"""

__all__ = ["html", "lake_report", "report"]
