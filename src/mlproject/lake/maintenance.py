"""Maintenance of tables: small files put together, old files removed, a checkpoint written."""

import json
import uuid
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Literal
from urllib.parse import unquote

import mlflow
from deltalake import DeltaTable
from deltalake.transaction import AddAction

from mlproject.integrations import mlflow_tracking
from mlproject.integrations.spark_session import LazySession
from mlproject.lake import data_files, snapshots, vacuum
from mlproject.lake.commits import commit
from mlproject.lake.location import locate
from mlproject.lake.rewrites import OpenSpark, compact
from mlproject.lake.schemas import TABLES, no_table
from mlproject.lake.snapshots import REWRITE, ActiveFile, active_files, is_table, open_table

TARGET_FILE_BYTES = 256 * 1024**2  # bytes of a file, about
MANY = 10  # small files that are worth a commit
# Below these shares of the target size files are put together, the smallest first. Up to a 64th, a
# few MB, that is cheap to repeat; from there on a row is written anew once a share, however many
# small commits come, and a file of a quarter never.
SHARES = (64, 16, 4)
METRICS = ("files", "files_compacted", "files_mended", "files_removed", "bytes_removed")


@dataclass(frozen=True, slots=True)
class Maintenance:
    """What maintenance did, or would do, to a lake."""

    lake: str
    """Where the lake lies."""
    planned: bool
    """Whether nothing was written: the counts are what would be done."""
    tables: tuple["TableMaintenance", ...]
    """One for each table."""


@dataclass(frozen=True, slots=True)
class TableMaintenance:
    """What maintenance did, or would do, to one table."""

    table: str
    """Name of the table."""
    files: int
    """Data files before."""
    files_compacted: int
    """Small files that were put together."""
    files_mended: int
    """Files whose statistics in the log lacked bounds, and have them now."""
    files_removed: int
    """Files that no version within the retention names, and that were removed."""
    bytes_removed: int
    """Their bytes."""
    table_version: int
    """The Delta version at the end."""


def maintain(
    *,
    lake: str = "lake",
    table: Literal[
        "all", "images", "files", "labels", "predictions", "rollouts", "erased", "leases"
    ] = "all",
    retention_hours: float = vacuum.LEAST_HOURS,
    plan: bool = False,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Maintenance:
    """Puts small data files together, removes old ones, and writes a checkpoint of each table.

    It may run beside every other command.

    Args:
        lake: Folder or URI of the tables.
        table: Name of one table; all = each that is there.
        retention_hours: Files that left a table within these hours stay, at least 24: for queries
            of older versions, and for active writers.
        plan: True only finds what would be done, and writes nothing.
        on_progress: Called with the tables done so far, and all.

    Raises:
        UserError: There is no such table, or the retention is too short.
        MachineError: A table cannot be written.
    """
    parameters = dict(locals())
    mlflow_tracking.connect()
    located = locate(lake)
    names = [name for name in TABLES if table in ("all", name)]
    names = [name for name in names if is_table(f"{located}/{name}")]
    if not names:
        absent = "images" if table == "all" else table
        raise no_table(f"{located}/{absent}", absent)
    with (
        mlflow_tracking.run("maintain", parameters),
        closing(LazySession("mlproject maintain", lake=located)) as spark,
    ):
        done: list[TableMaintenance] = []
        for name in names:
            path = f"{located}/{name}"
            with snapshots.errors_in_one_line(path):
                done.append(maintain_table(path, name, retention_hours, spark, plan=plan))
            on_progress(len(done), len(names))
        sums = {name: sum(getattr(one, name) for one in done) for name in METRICS}
        mlflow.log_metrics(sums)
    return Maintenance(located, plan, tuple(done))


def small_size(files: Sequence[ActiveFile], target_bytes: int = TARGET_FILE_BYTES) -> int:
    """Below which size, bytes, a table's files are to be put together; 0 = it does not pay yet."""
    for share in SHARES:
        if sum(file.size_bytes < target_bytes // share for file in files) >= MANY:
            return target_bytes // share
    return 0


def compact_small(path: str, target_bytes: int, spark: OpenSpark) -> int:
    """Puts a table's small files together when it pays, if it is there; returns their number."""
    files = active_files(open_table(path)) if is_table(path) else []
    size = small_size(files, target_bytes)
    return compact(path, target_bytes, size, spark).files_removed if size else 0


def maintain_table(
    path: str, table: str, retention_hours: float, spark: OpenSpark, *, plan: bool = False
) -> TableMaintenance:
    """Repairs statistics, puts small files together, removes old files, writes a checkpoint.

    With `plan` nothing is written, and it is only found what would be done. Raises UserError where
    the retention is too short, or the table cannot be read or written.
    """
    found = open_table(path)
    snapshots.require_rewritable(found, path)
    old = vacuum.old_files(path, retention_hours)
    files = active_files(found)
    if plan:
        mended, size = len(_mended(found)), small_size(files)
        compacted = sum(file.size_bytes < size for file in files)
    else:
        mended = _mend(path)
        compacted = compact_small(path, TARGET_FILE_BYTES, spark)
        vacuum.remove(path, old)
        checkpointed = open_table(path)
        checkpointed.create_checkpoint()
        checkpointed.cleanup_metadata()
    return TableMaintenance(
        table,
        len(files),
        compacted,
        mended,
        len(old),
        sum(info.size for info in old.values()),
        open_table(path).version(),
    )


def _mended(table: DeltaTable) -> list[AddAction]:
    """Data files once more, with the bounds that older releases left out of their statistics."""
    columns, actions = snapshots.file_columns(table), []
    for add in snapshots.logged_files(table):
        statistics = data_files.statistics_of(add)
        widened = data_files.widened(statistics, columns)
        if widened["minValues"] != statistics["minValues"] and add["path"].isascii():
            path, partition = unquote(add["path"]), add.get("partition") or {}
            values = {name: str(value) for name, value in partition.items()}
            logged = json.dumps(widened, ensure_ascii=False)
            facts = (path, add["size_bytes"], values, add["modification_time"])
            actions.append(AddAction(*facts, False, logged))
    return actions


def _mend(path: str) -> int:
    """Commits repaired statistics; returns the number of files. Retries after a conflict."""
    mark = uuid.uuid4().hex
    while True:
        table = open_table(path)
        actions = _mended(table)
        counters = {REWRITE: snapshots.counter(table, REWRITE) + 1}
        if not actions or isinstance(commit(path, table, actions, counters, mark=mark), int):
            return len(actions)
