"""HTML pages: the report of a lake, and the page of the gates.

Other packages import the modules of `__all__`; the others are private to this one.
"""

__all__ = ["gate_page", "html", "lake_report", "report"]
