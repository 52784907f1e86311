"""Rewrites of data files: rows taken out or replaced, and small files put together.

Tasks read files and write their successors, a row group at a time; one commit removes the ones and
adds the others. The application transaction `rewrite` lets one of two rewrites at once succeed.
"""

import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, TypeVar

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from deltalake import DeltaTable

from mlproject.lake import data_files, old_paths, snapshots
from mlproject.lake.commits import replace_files
from mlproject.lake.data_files import DataFile
from mlproject.lake.snapshots import ERASE, REWRITE, ActiveFile, active_files, counter, open_table
from mlproject.storage.object_storage import open_path

if TYPE_CHECKING:  # it takes a second to import
    from pyspark.sql import SparkSession

Part = TypeVar("Part")
Result = TypeVar("Result")
OpenSpark = Callable[[], "SparkSession"]

IN_PROCESS_BYTES = 64 * 1024**2  # bytes of files for which no Spark is started
READ_ROWS = 64  # rows read at a time: of content of 1 MB each, 64 MB
READ_BUFFER_BYTES = 1024**2  # bytes read at a time of one column


@dataclass(frozen=True, slots=True)
class Rewritten:
    """What one rewrite did to a table."""

    table_version: int
    """The version that it committed, or the newest where there was nothing to do."""
    rows_removed: int
    """Rows that the table has no more."""
    files_removed: int
    """Data files that the new version does not name."""
    files_added: int
    """Data files that it names instead."""


@dataclass(frozen=True, slots=True)
class _Task:
    """What a task needs to write successors."""

    path: str
    version: int
    columns: pa.Schema


@dataclass(frozen=True, slots=True)
class _Rows:
    """Rows that a rewrite leaves out."""

    image_ids: pa.Array
    model_id: str | None = None  # None = of every model

    def among(self, rows: pa.Table) -> pa.ChunkedArray:
        """Whether each of these rows is one of them."""
        found = pc.is_in(rows["image_id"], self.image_ids)
        if self.model_id is None:
            return found
        return pc.and_(found, pc.fill_null(pc.equal(rows["model_id"], self.model_id), False))

    @property
    def keys(self) -> list[str]:
        """The columns that tell."""
        return ["image_id"] if self.model_id is None else ["image_id", "model_id"]


def erase_rows(path: str, image_ids: Sequence[str], spark: OpenSpark) -> Rewritten:
    """Removes the rows of some images from a table, and fences commits in preparation.

    Only files that hold such a row are written anew, one into one. Also without such a row a commit
    moves the application transaction `erase` to its own version: data files that were begun before
    it are never committed after it. The old files stay where they are, see `vacuum`.

    Raises:
        UserError: The table cannot be rewritten.
        MachineError: It cannot be read or written now; nothing was.
    """
    rows = _Rows(pa.array(image_ids, pa.string()))
    with snapshots.errors_in_one_line(path):
        while True:
            done = _without_rows(path, _open(path), rows, spark)
            if done:
                return done


def replace_rows(
    files: Sequence[DataFile], since: snapshots.Snapshot, model_id: str, spark: OpenSpark
) -> Rewritten | None:
    """Puts new rows of a model in place of its rows of the same images, in one commit.

    Each of these images has one row of it then, also where another writer replaces or adds one.

    Args:
        files: Data files of one partition, at least one, with the new rows; no commit names them.
        since: The version that the new rows were computed from.
        model_id: The model that made them.
        spark: Starts a session when there is much to rewrite.

    Returns:
        None when an erasure came first: the files were deleted, and their rows are to be computed
        anew, from fresh snapshots.

    Raises:
        UserError: The table cannot be rewritten.
        MachineError: It cannot be read or written now; nothing was.
    """
    path, names = since.path, [file.name for file in files]
    with snapshots.errors_in_one_line(path):
        while counter(base := _open(path), ERASE) == since.erasures:
            # An erasure may remove them before they are read.
            ids = _unless_rewritten(path, counter(base, REWRITE), partial(_ids, path, names))
            rows = None if ids is None else _Rows(ids, model_id)
            done = _without_rows(path, base, rows, spark, files) if rows else None
            if done:
                return done
        data_files.delete(path, names)
    return None


def _without_rows(
    path: str, base: DeltaTable, rows: _Rows, spark: OpenSpark, new: Sequence[DataFile] = ()
) -> Rewritten | None:
    """One try of `erase_rows`, or of `replace_rows` with new files; None when it came second."""
    rewrites, seen, mark = counter(base, REWRITE), set[str](), uuid.uuid4().hex
    partition = new[0].partition_values if new else None
    removed: list[ActiveFile] = []
    added: list[DataFile] = []
    while counter(base, REWRITE) == rewrites:
        files = [file for file in active_files(base) if file.path not in seen]
        seen |= {file.path for file in files}
        files = [file for file in files if partition in (None, file.partition_values)]
        found = _unless_rewritten(path, rewrites, partial(_rewrite, files, rows, base, path, spark))
        if found is None:
            break
        removed += [file for file, _ in found]
        added += [successor for _, successor in found if successor]
        counters = {REWRITE: rewrites + 1}
        if not new:
            counters[ERASE] = base.version() + 1
        done = replace_files(
            path, base, removed, [*added, *new], counters, mark=mark, data_change=True
        )
        if isinstance(done, int):
            count = sum(file.rows for file in removed) - sum(file.rows for file in added)
            return Rewritten(done, count, len(removed), len(added))
        base = done  # what was appended meanwhile is searched as well
    data_files.delete(path, [file.name for file in added])
    return None


def compact(path: str, target_bytes: int, smaller_than: int, spark: OpenSpark) -> Rewritten:
    """Puts files that are smaller than a size together into files of about `target_bytes`.

    The rows stay the same, which the commit says (no data change). When another rewrite comes
    first, nothing is changed. Raises the errors of `erase_rows`.
    """
    with snapshots.errors_in_one_line(path):
        base = _open(path)
        rewrites, mark = counter(base, REWRITE), uuid.uuid4().hex
        groups = _groups(active_files(base), target_bytes, smaller_than)
        removed = [file for group in groups for file in group]
        size, task = sum(file.size_bytes for file in removed), _task(base, path)
        merge = partial(_in_tasks, partial(_write_merge, task), groups, size, spark)
        added = _unless_rewritten(path, rewrites, merge) if groups else None
        while added and counter(base, REWRITE) == rewrites:
            counters = {REWRITE: rewrites + 1}
            done = replace_files(path, base, removed, added, counters, mark=mark, data_change=False)
            if isinstance(done, int):
                return Rewritten(done, 0, len(removed), len(added))
            base = done
        data_files.delete(path, [file.name for file in added or ()])
        return Rewritten(base.version(), 0, 0, 0)


def _open(path: str) -> DeltaTable:
    """A table's newest version, once its files can be removed; UserError if they cannot."""
    table = open_table(path)
    snapshots.require_rewritable(table, path)
    return open_table(path) if old_paths.move(table, path) else table


def _rewrite(
    files: Sequence[ActiveFile], rows: _Rows, table: DeltaTable, path: str, spark: OpenSpark
) -> list[tuple[ActiveFile, DataFile | None]]:
    """The files that hold one of these rows, each with its successor; None = no row is left."""
    if not files or not len(rows.image_ids):
        return []
    task = _task(table, path)

    def successor(file: ActiveFile) -> tuple[bool, DataFile | None]:
        holds = pc.any(rows.among(_columns_of(path, file.path, rows.keys))).as_py()
        return bool(holds), _write_file(task, [file], rows) if holds else None

    size = sum(file.size_bytes for file in files)
    found = _in_tasks(successor, files, size, spark)
    return [(file, new) for file, (holds, new) in zip(files, found, strict=True) if holds]


def _unless_rewritten(path: str, rewrites: int, work: Callable[[], Result]) -> Result | None:
    """The result of a function; None if it failed during another rewrite, which removes files."""
    try:
        return work()
    except Exception:  # of pyarrow here, of Spark where tasks read; raised again below
        if counter(open_table(path), REWRITE) == rewrites:
            raise
        return None


def _task(table: DeltaTable, path: str) -> _Task:
    return _Task(path, table.version(), snapshots.file_columns(table))


def _columns_of(path: str, name: str, columns: list[str]) -> pa.Table:
    """Some columns of a data file; the others are not read."""
    filesystem, folder = open_path(path)
    with filesystem.open_input_file(f"{folder}/{name}") as opened:
        return pq.ParquetFile(opened).read(columns)


def _ids(path: str, names: Sequence[str]) -> pa.Array:
    columns = [_columns_of(path, name, ["image_id"])["image_id"] for name in names]
    return pa.chunked_array(columns, pa.string()).combine_chunks()


def _write_merge(task: _Task, files: Sequence[ActiveFile]) -> DataFile:
    if (written := _write_file(task, files)) is None:
        raise RuntimeError(f"{task.path} has data files without rows: {files[0].path!r}")
    return written


def _write_file(
    task: _Task, files: Sequence[ActiveFile], without: _Rows | None = None
) -> DataFile | None:
    """One data file with the rows of files of one partition, but for some rows."""
    tables = data_files.row_groups(chain.from_iterable(_batches(task, f, without) for f in files))
    values = files[0].partition_values
    return data_files.write(tables, task.columns, task.path, task.version, partition_values=values)


def _batches(task: _Task, file: ActiveFile, without: _Rows | None) -> Iterator[pa.RecordBatch]:
    filesystem, folder = open_path(task.path)
    with filesystem.open_input_file(f"{folder}/{file.path}") as opened:
        parquet = pq.ParquetFile(opened, buffer_size=READ_BUFFER_BYTES, pre_buffer=False)
        # Given all row groups at once, pyarrow puts rows of several into one batch.
        groups = range(parquet.num_row_groups)
        read = partial(parquet.iter_batches, READ_ROWS, use_threads=False)
        for batch in chain.from_iterable(read(row_groups=[group]) for group in groups):
            rows = pa.Table.from_batches([batch])
            if without is not None:
                rows = rows.filter(pc.invert(without.among(rows)))
            columns = [
                rows[field.name].cast(field.type)
                if field.name in rows.column_names
                else pa.nulls(rows.num_rows, field.type)
                for field in task.columns
            ]
            yield from pa.table(columns, schema=task.columns).to_batches()


def _in_tasks(
    function: Callable[[Part], Result], parts: Sequence[Part], size: int, spark: OpenSpark
) -> list[Result]:
    """The results of a function for each part: in Spark's tasks, or here when there is little."""
    if size <= IN_PROCESS_BYTES:
        return [function(part) for part in parts]
    context = spark().sparkContext
    return context.parallelize(parts, len(parts)).map(function).collect()


def _groups(
    files: Sequence[ActiveFile], target_bytes: int, smaller_than: int
) -> list[list[ActiveFile]]:
    """Files to put together, each group of one partition and at most about the wanted size."""
    small = [file for file in files if file.size_bytes < smaller_than]
    groups: list[list[ActiveFile]] = []
    held = 0
    for file in sorted(small, key=lambda file: (sorted(file.partition_values.items()), file.path)):
        is_same = bool(groups) and groups[-1][0].partition_values == file.partition_values
        if not is_same or held + file.size_bytes > target_bytes:
            groups.append([])
            held = 0
        groups[-1].append(file)
        held += file.size_bytes
    return [group for group in groups if len(group) > 1]
