"""Makes registered model versions from weights and labels; resolves and moves aliases and stages.

Other packages import the modules of `__all__`; the others are private to this one.
"""

__all__ = [
    "engines",
    "ready_weights",
    "reference_images",
    "reference_results",
    "registration",
    "registry",
    "version",
    "version_files",
]
