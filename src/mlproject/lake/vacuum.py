"""Removes files that the newest version does not name: erased ones at once, others after a day."""

import math
import time
import uuid
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import unquote

from deltalake import DeltaTable
from pyarrow import fs

from mlproject.errors import UserError
from mlproject.lake import data_files
from mlproject.lake.commits import commit
from mlproject.lake.snapshots import ERASE, active_files, counter, open_table
from mlproject.storage.object_storage import one_line, open_path

VACUUMED = "vacuum"  # application transaction: the erasure whose files were removed
CHANGES = "_change_data"  # Source: Delta protocol, "Change Data Files"
# A file that no commit names may be of an active writer: none takes as long for a micro-batch.
LEAST_HOURS = 24.0

Files = dict[str, fs.FileInfo]  # by their paths below the table's folder


def erased_files(path: str, retention_hours: float = 0) -> int:
    """Removes the files that still hold erased rows, and records that in the table.

    These are the files without a name in the newest version that were begun before the last
    erasure: no writer commits one of them any more. Those of an active writer are younger. Files
    removed from the table, or left by a kill, within `retention_hours` stay, and the table records
    that they are still there. Returns the number of data files removed.
    """
    table, found = unreferenced(path)
    fence = counter(table, ERASE)
    begun = {name: data_files.begun_at(name) for name in found}
    gone = {name: found[name] for name, at in begun.items() if at is None or at < fence}
    if retention_hours:
        gone = _older(table, gone, retention_hours)
    remove(path, gone)
    mark = uuid.uuid4().hex
    while not retention_hours and counter(table, VACUUMED) < fence:
        done = commit(path, table, [], {VACUUMED: fence}, mark=mark)
        if isinstance(done, int):
            break
        table = done
    return sum(PurePosixPath(name).suffix == ".parquet" for name in gone)


def remove(path: str, names: Iterable[str]) -> None:
    """Removes files of a table's folder; UserError where one cannot be removed."""
    filesystem, folder = open_path(path)
    for name in names:
        try:
            filesystem.delete_file(f"{folder}/{name}")
        except FileNotFoundError:
            continue  # another command was faster
        except OSError as error:
            raise UserError(
                f"File {name!r} of table {path!r} cannot be removed ({one_line(error)}). "
                "Permit its removal, then run the command again"
            ) from error


def old_files(path: str, retention_hours: float) -> Files:
    """The files that the newest version does not name, and none within these hours did.

    Raises:
        UserError: The retention is below `LEAST_HOURS`, or the table cannot be read.
    """
    if not retention_hours >= LEAST_HOURS:
        raise UserError(f"retention_hours={retention_hours:g} is below {LEAST_HOURS:g}")
    table, found = unreferenced(path)
    # Deletion vectors may belong to older versions, which can be read for some time.
    found = {name: info for name, info in found.items() if not name.endswith(".bin")}
    return _older(table, found, retention_hours)


def is_unfinished(path: str) -> bool:
    """Whether files may still hold rows that an erasure took out of the table."""
    table = open_table(path)
    return counter(table, ERASE) > counter(table, VACUUMED) or _was_left_by_older_release(table)


def unreferenced(path: str) -> tuple[DeltaTable, Files]:
    """A table at its newest version, and the files in its folder that this version does not name.

    The folder is listed first. So a listed file that is committed before the table is opened is
    named by it; what is committed later was begun at this version or is refused.

    Raises:
        UserError: The folder cannot be listed, or it lacks files that the table names.
    """
    filesystem, folder = open_path(path)
    try:
        infos = filesystem.get_file_info(fs.FileSelector(folder, recursive=True))
        table = open_table(path)
        active = {file.path for file in active_files(table)}
        files = (info for info in infos if info.type == fs.FileType.File)
        listed = {info.path.removeprefix(f"{folder}/"): info for info in files}
        late = sorted(active - listed.keys())  # written after the listing, or lost
        late_infos = filesystem.get_file_info([f"{folder}/{name}" for name in late])
    except OSError as error:
        raise UserError(f"Table {path!r} cannot be listed ({one_line(error)})") from error
    for name, info in zip(late, late_infos, strict=True):
        if info.type == fs.FileType.NotFound:
            raise UserError(
                f"Table {path!r} names {name!r}, which is not in its folder. Restore that file "
                "before files are removed"
            )
    names = [name for name in listed if name not in active and _is_data(name)]
    return table, {name: listed[name] for name in names}


def _is_data(name: str) -> bool:
    """Whether a file holds rows, or is the checksum that Hadoop wrote beside such a file."""
    *folders, last = PurePosixPath(name).parts
    if folders[:1] == [CHANGES]:
        return True
    hidden = any(part.startswith(("_", ".")) for part in folders)
    return not hidden and (last.endswith(".crc") or not last.startswith(("_", ".")))


def _older(table: DeltaTable, files: Files, hours: float) -> Files:
    """Those that left the table, or were written and never were in it, before these hours."""
    left = partial(table.vacuum, dry_run=True, enforce_retention_duration=False)
    removed, expired = ({unquote(name) for name in left(since)} for since in (0, math.ceil(hours)))
    before = time.time() - 3600 * hours

    def is_old(name: str, info: fs.FileInfo) -> bool:
        names = {name, unquote(name)}
        return bool(names & expired) if names & removed else info.mtime_ns / 1e9 < before

    return {name: info for name, info in files.items() if is_old(name, info)}


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
