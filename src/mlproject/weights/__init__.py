"""Reads the weights files that users have, and converts them to one canonical file per framework.

Other packages import the modules of `__all__`; the others are private to this one.
"""

__all__ = ["weights_files"]
