"""Versions with int8 or float16 networks, made from float32 versions and measured against them.

Other packages import the modules of `__all__`; the others are private to this one.
"""

__all__ = ["measures", "quantized_versions"]
