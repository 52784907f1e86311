"""Image files and their bytes: reads, hashes and headers of files, contents, thumbnails.

Other packages import the modules of `__all__`; the others are private to this one.
"""

__all__ = ["image_bytes", "image_files", "samples", "thumbnails"]
