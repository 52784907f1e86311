"""Image files and their bytes: reads, hashes, headers, contents, samples, splits, thumbnails.

Other packages import the modules of `__all__`; the others are private to this one.
"""

__all__ = ["image_bytes", "image_files", "samples", "splits", "stored_images", "thumbnails"]
