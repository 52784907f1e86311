"""Removes images from every table, and from every file of the lake.

Other packages import the modules of `__all__`; the others are private to this one.
"""

__all__ = ["removal", "requests", "selection"]
