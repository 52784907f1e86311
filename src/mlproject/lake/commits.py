"""The one way into a table's log: a compare-and-set on its version, by delta-rs.

Tasks, or this process, write data files; then one commit names them. delta-rs does not retry
(`max_commit_retries=0`): a commit succeeds as the version after the one that it was
computed from, or not at all. After a conflict the rules of decision 3 decide here whether the same
files are committed from the newest version, or what they hold has to be computed anew.
"""

import json
import logging
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, Transaction
from deltalake.exceptions import DeltaError
from deltalake.transaction import AddAction, RemoveAction

from mlproject.errors import MachineError, MlprojectError, UserError
from mlproject.lake import data_files, snapshots
from mlproject.lake.data_files import DataFile
from mlproject.lake.location import is_local
from mlproject.lake.schemas import SCHEMAS
from mlproject.lake.snapshots import (
    ERASE,
    ActiveFile,
    Snapshot,
    active_files,
    counter,
    open_table,
)
from mlproject.storage.object_storage import one_line, open_path

OPERATION = "mlproject.operation"  # what a commit did, in its metadata
_MARK = "mlproject.commit"
_PATIENCE = 10  # conflicts after which a warning is logged
RETRY_WAIT_S = 5  # before a commit that the disk or the server refused is tried once more

_log = logging.getLogger(__name__)


def append_rows(rows: pa.Table, since: Snapshot) -> Snapshot | None:
    """As `append_files`, for the rows of a small table without partitions."""
    try:
        written = data_files.write([rows], SCHEMAS[since.table], since.path, since.version)
    except OSError as error:
        raise snapshots.cannot_be_written(since.path, error) from error
    return append_files([written] if written else [], since)


def append_files(
    files: Sequence[DataFile],
    since: Snapshot,
    still_new: Callable[[Snapshot], bool] = lambda newest: False,
) -> Snapshot | None:
    """Adds data files whose rows were computed from a snapshot, in one commit, or not at all.

    The commit moves the filler's application transaction from `since.fills` to the next number. It
    is retried, with the same files, as long as only other fillers and compactions come first; and
    after a commit of the same filler if `still_new` says of the version with that commit that it
    has none of the rows. Source: Delta protocol, "Transaction Identifiers".

    Returns:
        The version that holds the files, from which the filler's next commit may be computed. None
        when another commit of the same filler, or an erasure, came first: the files were deleted,
        and their rows are to be computed anew, from fresh snapshots.

    Raises:
        MachineError: The table cannot be written, as on a full disk, also some seconds later. The
            files were deleted where it is certain that no commit names them; else `vacuum`
            removes them.
    """
    if not files:
        return since
    mark, base, conflicts = uuid.uuid4().hex, open_table(since.path, since.version), 0
    adds = add_actions(files, base, data_change=True)
    try:
        while True:
            done = commit(since.path, base, adds, {since.filler: since.fills + 1}, mark=mark)
            if isinstance(done, int):
                return replace(since, version=done, fills=since.fills + 1)
            base = done
            newest = replace(since, version=base.version(), fills=counter(base, since.filler))
            erased = counter(base, ERASE) != since.erasures
            if not erased and (newest.fills == since.fills or still_new(newest)):
                since = newest
            else:
                data_files.delete(since.path, [file.name for file in files])
                return None
            conflicts += 1
            if conflicts % _PATIENCE == 0:
                message = "%s: %d commits of other writers came first; retrying ..."
                _log.warning(message, since.path, conflicts)
    except snapshots.NotCommittedError:
        if is_local(since.path):  # a request to an object store may still arrive
            data_files.delete(since.path, [file.name for file in files])
        raise


def commit(
    path: str,
    base: DeltaTable,
    actions: Sequence[AddAction | RemoveAction],
    counters: Mapping[str, int],
    *,
    mark: str,
) -> int | DeltaTable:
    """Commits actions, computed from `base`, as the version after it, or not at all.

    Args:
        path: Folder or URI of the table.
        base: The version of the table that the actions were computed from.
        actions: What the commit adds and removes; none = a mark only.
        counters: Application transactions, and their numbers from this commit on. The last one
            names the operation in the log.
        mark: A unique text, the same in a retry: it identifies a commit that succeeded though its
            response was lost.

    Returns:
        The version that holds the actions, or the newest one when another commit came first.

    Raises:
        MachineError: The table cannot be written, or it is not known whether it was.
    """
    *_, operation = counters
    properties = CommitProperties(
        custom_metadata={OPERATION: operation, _MARK: mark},
        max_commit_retries=0,
        app_transactions=[Transaction(name, number) for name, number in counters.items()],
    )
    for is_last in (False, True):
        try:
            base.create_write_transaction(
                list(actions),
                "append",
                base.schema(),
                partition_by=base.metadata().partition_columns or None,
                commit_properties=properties,
            )
        except (DeltaError, OSError) as error:
            try:
                newest = _newest(path, base, mark)
            except MlprojectError as unread:
                newest = None
                if is_last:
                    raise MachineError(
                        f"It is not known whether a commit to table {path!r} succeeded. {unread}. "
                        "Run the command again"
                    ) from error
            if newest is not None:
                return newest
            if is_last:
                raise snapshots.cannot_be_written(path, error) from error
            time.sleep(RETRY_WAIT_S)
        else:
            break
    return int(base.version()) + 1


def _newest(path: str, base: DeltaTable, mark: str) -> int | DeltaTable | None:
    """After an error: the version that holds the commit; or the newest one; None = still `base`."""
    newest = open_table(path, advice="Perhaps it is away")
    later = range(base.version() + 1, newest.version() + 1)
    mine = next((version for version in later if _holds(path, version, mark)), None)
    return mine if mine is not None else newest if later else None


def replace_files(
    path: str,
    base: DeltaTable,
    removed: Sequence[ActiveFile],
    added: Sequence[DataFile],
    counters: dict[str, int],
    *,
    mark: str,
    data_change: bool,
) -> int | DeltaTable:
    """Commits a rewrite as the version after `base`; the newest version when another came first.

    delta-rs silently accepts the removal of a path that the table does not have, so every
    path is seen to be active before, and to be gone after.
    """
    active = {file.path for file in active_files(base)}
    lost = [file.path for file in removed if file.path not in active]
    if lost:
        raise RuntimeError(f"{path} names no file {lost[0]!r} at {base.version()}")
    now = int(time.time() * 1000)
    removes = [
        RemoveAction(file.path, data_change, now, file.size_bytes, file.partition_values)
        for file in removed
    ]
    actions = [*removes, *add_actions(added, base, data_change=data_change)]
    done = commit(path, base, actions, counters, mark=mark)
    if not isinstance(done, int):
        return done
    after = {file.path for file in active_files(open_table(path, done))}
    if after != (active - {file.path for file in removed}) | {file.name for file in added}:
        raise RuntimeError(f"version {done} of {path} does not name the right files")
    return done


def add_actions(
    files: Iterable[DataFile], table: DeltaTable, *, data_change: bool
) -> list[AddAction]:
    """The actions that add data files, which hold new rows with `data_change` only.

    Columns that somebody has added to the table are null in files without them.
    """
    columns = [field.name for field in table.schema().fields]
    actions = []
    for file in files:
        nulls = {name: file.rows for name in columns if name not in file.partition_values}
        statistics = {**file.statistics, "nullCount": nulls | file.statistics["nullCount"]}
        logged = json.dumps(statistics, ensure_ascii=False)
        facts = (file.name, file.size_bytes, file.partition_values, file.written_ms)
        actions.append(AddAction(*facts, data_change, logged))
    return actions


def log_entry(path: str, version: int) -> bytes:
    """A commit in a table's log, a line of JSON for each action; OSError if it cannot be read."""
    filesystem, folder = open_path(path)
    with filesystem.open_input_stream(f"{folder}/_delta_log/{version:020}.json") as log:
        return bytes(log.read())


def _holds(path: str, version: int, mark: str) -> bool:
    """Whether a commit has a mark. deltalake's history miscounts versions amid other commits."""
    try:
        return mark.encode() in log_entry(path, version)
    except OSError as error:
        raise UserError(
            f"Version {version} of table {path!r} cannot be read ({one_line(error)})"
        ) from error
