"""Image files and their bytes: reading, hashing, headers, thumbnails, bytes by table or by path.

Other packages import the modules of `__all__`; the others are private to this one.
"""

__all__ = ["image_bytes", "image_files", "thumbnails"]
