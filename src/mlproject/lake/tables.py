"""Names of before this release, until the packages that use them have moved on."""

from mlproject.lake.commits import append_files as commit
from mlproject.lake.commits import append_rows as append
from mlproject.lake.queries import foreign, instant, query, quoted
from mlproject.lake.snapshots import active_files, is_table, newest, open_table
from mlproject.lake.snapshots import to_append as snapshot

__all__ = [
    "append",
    "commit",
    "file_sizes",
    "foreign",
    "instant",
    "newest",
    "query",
    "quoted",
    "snapshot",
]


def file_sizes(path: str) -> list[int]:
    """Bytes of each of a table's files, none when there is no table."""
    if not is_table(path):
        return []
    return [file.size_bytes for file in active_files(open_table(path))]
