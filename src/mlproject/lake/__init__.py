"""The Delta tables of a lake: where they lie, their columns, snapshots, queries and commits.

Other packages import the modules of `__all__`; the others are private to this one.
"""

__all__ = ["compaction", "data_files", "location", "removal", "spark_tables", "tables"]
