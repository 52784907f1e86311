"""The listing of a source becomes rows of `images`: pending files, labels, source clean-up.

Other packages import the modules of `__all__`; the others are private to this one.
"""

__all__ = [
    "known_files",
    "label_tables",
    "labels",
    "new_images",
    "reconciliation",
    "source_cleaning",
    "source_listing",
    "sources",
]
