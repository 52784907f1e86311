"""Removes files that the newest version does not name: erased ones at once, others after a day."""

import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import unquote

from deltalake import DeltaTable
from pyarrow import fs

from mlproject.errors import UserError
from mlproject.integrations.object_storage import open_path
from mlproject.lake import data_files
from mlproject.lake.commits import commit
from mlproject.lake.snapshots import ERASE, active_files, counter, open_table

VACUUMED = "vacuum"  # application transaction: the erasure whose files were removed
CHANGES = "_change_data"  # Source: Delta protocol, "Change Data Files"
# A file that no commit names may be of a writer at work: none takes as long for a micro-batch.
LEAST_HOURS = 24.0


@dataclass(frozen=True, slots=True)
class Unreferenced:
    """A file in a table's folder that the newest version does not name."""

    path: str
    """Its path below the folder."""
    size_bytes: int
    """Its size."""
    modified_at: float
    """When it was written, seconds since 1970."""


def erased_files(path: str, retention_hours: float = 0) -> int:
    """Removes the files that still hold erased rows, and notes that in the table.

    These are the files without a name in the newest version that were begun before the last
    erasure: no writer commits one of them any more. Those of a writer at work are younger.

    Args:
        path: Folder or URI of the table.
        retention_hours: Files removed from the table, or left by a kill, within these hours stay,
            and so does the note that they are there.

    Returns:
        The number of files removed.

    Raises:
        UserError: The table cannot be read or written.
    """
    found = unreferenced(path)
    table = open_table(path)
    fence = counter(table, ERASE)

    def is_older(file: Unreferenced) -> bool:
        begun = data_files.begun_at(PurePosixPath(file.path).name)
        return begun is None or begun < fence

    gone = [file for file in found if is_older(file)]
    if retention_hours:
        old = _older(table, retention_hours)
        gone = [file for file in gone if old(file)]
    data_files.delete(path, [file.path for file in gone])
    if fence > counter(table, VACUUMED) and not retention_hours:
        mark = uuid.uuid4().hex
        while not isinstance(
            done := commit(path, table, [], {VACUUMED: fence}, "vacuum", mark=mark), int
        ):
            table = done.newest
    return sum(PurePosixPath(file.path).suffix == ".parquet" for file in gone)


def old_files(path: str, retention_hours: float) -> list[Unreferenced]:
    """The files that the newest version does not name, and none within these hours did.

    Args:
        path: Folder or URI of the table.
        retention_hours: At least `LEAST_HOURS`.

    Raises:
        UserError: The retention is too short, or the table cannot be read.
    """
    if not retention_hours >= LEAST_HOURS:
        raise UserError(f"retention_hours={retention_hours:g} is below {LEAST_HOURS:g}")
    found = unreferenced(path)
    old = _older(open_table(path), retention_hours)
    return [file for file in found if old(file)]


def is_unfinished(path: str) -> bool:
    """Whether files may still hold rows that an erasure took out of the table."""
    table = open_table(path)
    return counter(table, ERASE) > counter(table, VACUUMED) or _was_left_by_older_release(table)


def unreferenced(path: str) -> list[Unreferenced]:
    """The files in a table's folder that its newest version does not name.

    Raises:
        UserError: The folder cannot be listed, or it lacks files that the table names.
    """
    filesystem, folder = open_path(path)
    try:
        infos = filesystem.get_file_info(fs.FileSelector(folder, recursive=True))
    except OSError as error:
        raise UserError(f"Table {path!r} cannot be listed ({error})") from error
    # Listed first: what is committed between the two is named by then.
    active = {file.path for file in active_files(open_table(path))}
    files = (info for info in infos if info.type == fs.FileType.File)
    listed = {info.path.removeprefix(f"{folder}/"): info for info in files}
    lost = sorted(active - listed.keys())
    if lost:
        raise UserError(
            f"Table {path!r} names {lost[0]!r}, which is not in its folder. Restore that file "
            "before files are removed"
        )
    return [
        Unreferenced(name, info.size, info.mtime_ns / 1e9)
        for name, info in listed.items()
        if name not in active and _is_data(name)
    ]


def _is_data(name: str) -> bool:
    """Whether a file holds rows, or is the checksum that Hadoop wrote beside such a file."""
    *folders, last = PurePosixPath(name).parts
    if folders[:1] == [CHANGES]:
        return True
    hidden = any(part.startswith(("_", ".")) for part in folders)
    return not hidden and (last.endswith(".crc") or not last.startswith(("_", ".")))


def _older(table: DeltaTable, hours: float) -> Callable[[Unreferenced], bool]:
    """Whether a file left the table, or was written and never was in it, before these hours."""
    removed, kept = ({unquote(name) for name in _removed(table, since)} for since in (0.0, hours))
    before = time.time() - 3600 * hours

    def is_old(file: Unreferenced) -> bool:
        names = {file.path, unquote(file.path)}
        return bool(names & kept) if names & removed else file.modified_at < before

    return is_old


def _removed(table: DeltaTable, hours: float) -> list[str]:
    """The paths that left the table more than these hours ago; nothing is deleted here."""
    found = table.vacuum(int(hours), dry_run=True, enforce_retention_duration=False)
    return list(map(str, found))


def _was_left_by_older_release(table: DeltaTable) -> bool:
    """Whether a MERGE that deletes was followed by no VACUUM that reached it.

    Releases before this one erased so. A VACUUM reaches what was deleted before it began less its
    retention. Source: delta-spark, VacuumCommand.logVacuumStart and DeltaOperations.Merge.
    """
    if counter(table, ERASE) >= 0:
        return False
    deleted = started = reached = None
    for entry in reversed(table.history()):
        at = datetime.fromtimestamp(entry["timestamp"] / 1000, UTC)
        parameters: dict[str, Any] = entry.get("operationParameters") or {}
        operation = entry.get("operation")
        if operation == "MERGE" and "delete" in str(parameters.get("matchedPredicates")):
            deleted = at
        elif operation == "VACUUM START":
            millis = parameters.get("specifiedRetentionMillis") or parameters.get(
                "defaultRetentionMillis", 0
            )
            started = at - timedelta(milliseconds=int(millis))
        elif operation == "VACUUM END":
            reached = started
    return deleted is not None and (reached is None or reached < deleted)
