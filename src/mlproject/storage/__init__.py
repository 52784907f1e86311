"""Files on this machine and on object storage: their paths, clients, credentials and errors.

Other packages import the modules of `__all__`; the others are private to this one.
"""

__all__ = ["local_files", "lookups", "object_storage", "overlap"]
