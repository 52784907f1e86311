"""The Delta tables of a lake: where they lie, their columns, snapshots, queries, commits, rewrites.

Tasks, or this process, write data files, and delta-rs commits them; Spark only reads Delta. Other
packages import the modules of `__all__`; the others are private to this one.
"""

__all__ = [
    "commits",
    "data_files",
    "location",
    "maintenance",
    "queries",
    "rewrites",
    "schemas",
    "snapshots",
    "vacuum",
]
