"""Trains weights on the labelled images of a lake, in Keras or PyTorch.

Other packages import the modules of `__all__`; the others are private to this one.
"""

__all__ = ["classifier", "drawn_images", "labelled_images", "learning", "trained_versions"]
