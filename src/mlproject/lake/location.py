"""Where a lake lies, what its tables are, and who writes it; no Spark.

A *lake* is one folder or URI; `LAKE/images`, `LAKE/predictions` and `LAKE/rollouts` lie in it.
"""

import contextlib
import os
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import filelock
import pyarrow as pa
from deltalake import DeltaTable, Schema
from deltalake.exceptions import DeltaError

from mlproject.errors import UserError
from mlproject.integrations.local_files import local_path

if TYPE_CHECKING:  # it takes a second to import
    from pyspark.sql import DataFrame, SparkSession

_TIME = pa.timestamp("us", "UTC")

SCHEMAS = {
    "images": pa.schema(
        [
            ("path", pa.string()),
            ("image_id", pa.string()),
            ("size_bytes", pa.int64()),
            ("modified_at", _TIME),
            ("format", pa.string()),
            ("width", pa.int32()),
            ("height", pa.int32()),
            ("label", pa.string()),
            ("content", pa.binary()),
            ("thumbnail", pa.binary()),
            ("error", pa.string()),
            ("ingested_at", _TIME),
        ]
    ),
    # What was seen at a path since its row in `images`; made when there is something to tell.
    "files": pa.schema(
        [
            ("path", pa.string()),
            ("size_bytes", pa.int64()),
            ("modified_at", _TIME),
            ("image_id", pa.string()),
            ("state", pa.string()),
            ("at", _TIME),
        ]
    ),
    "predictions": pa.schema(
        [
            ("image_id", pa.string()),
            ("model_name", pa.string()),
            ("model_version", pa.int32()),
            ("label", pa.string()),
            ("score", pa.float64()),
            ("top_labels", pa.list_(pa.string())),
            ("top_scores", pa.list_(pa.float64())),
            ("error", pa.string()),
            ("model_id", pa.string()),
            ("run_id", pa.string()),
            ("images_version", pa.int64()),
            ("scored_at", _TIME),
        ]
    ),
    "rollouts": pa.schema(
        [
            ("pointer", pa.string()),
            ("model_name", pa.string()),
            ("model_version", pa.int32()),
            ("model_id", pa.string()),
            ("state", pa.string()),
            ("coverage", pa.float64()),
            ("images", pa.int64()),
            ("answered", pa.int64()),
            ("errors", pa.int64()),
            ("reason", pa.string()),
            ("run_id", pa.string()),
            ("images_version", pa.int64()),
            ("at", _TIME),
        ]
    ),
    "erased": pa.schema([("image_id", pa.string()), ("size_bytes", pa.int64()), ("at", _TIME)]),
}
IMAGE_ID = re.compile("[0-9a-fA-F]{64}")  # sha256 as a person may write it
MADE_BY = {
    "images": "ingest -P source=FOLDER",
    "files": "ingest -P source=FOLDER",
    "predictions": "score -P model=models:/photos@champion",
    "rollouts": "rescore -P pointers=models:/photos@champion",
    "erased": "erase -P file=LIST",
}
# Columns that tables of older releases lack: null there, and added by the next who writes.
ADDED = {"rollouts": ("images", "answered", "errors", "reason", "run_id")}
LIKE_SPARK = {"delta.checkpointInterval": "10"}  # deltalake's own is 100 commits
PARTITIONS = {"predictions": ["model_name", "model_version"]}


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One version of one table, and how often a filler has filled it up to there."""

    table: str
    """Name of the table, of `SCHEMAS`."""
    path: str
    """Where the table lies: a path or URI."""
    version: int
    """The Delta version that was read, from 0."""
    filler: str
    """What fills the table; Delta's transaction app id."""
    fills: int
    """The number of the filler's last append in this version; -1 before its first."""

    def read(self, spark: "SparkSession") -> "DataFrame":
        """The rows of this very version."""
        reader = spark.read.format("delta").option("versionAsOf", self.version)
        return reader.load(self.path)


def locate(lake: str) -> str:
    """The lake as an absolute path, or as the URI it is."""
    if not is_local(lake):
        return lake.rstrip("/")
    return str(local_path(lake))


def locate_to_write(lake: str) -> str:
    """As `locate`, and a local lake's folder is made when it is absent.

    Raises:
        UserError: No folder can be made or written there.
    """
    located = locate(lake)
    if is_local(located):
        # deltalake takes a path for a URL in places. Seen with deltalake 1.6.6.
        if re.search(r"%[0-9A-Fa-f]{2}|[\\\n\t]", located):
            raise UserError(
                f"Lake {lake!r} has a % or \\ in its name. Name another: -P lake=FOLDER"
            )
        try:
            Path(located).mkdir(parents=True, exist_ok=True)
            _lock_file(located).touch()
        except OSError as error:
            raise UserError(
                f"Lake {lake!r} cannot be written ({error.strerror}). "
                "Name a folder that you may write: -P lake=FOLDER"
            ) from error
    return located


def is_local(lake: str) -> bool:
    """Whether a lake lies in a folder of this machine: a path, or a URI of the scheme `file`."""
    scheme = re.match(r"([a-zA-Z][\w+.-]+):", lake)  # one letter is a drive
    return scheme is None or scheme[1] == "file"


def create(path: str, table: str) -> None:
    """Makes a table without rows where none is; of two who do so at once one does.

    Raises:
        UserError: Other files lie there, or it cannot be made.
    """
    files = {file.name for file in Path(path).glob("*")} if is_local(path) else set()
    if files and "_delta_log" not in files:
        raise UserError(
            f"{path!r} is a folder of other files, where the table {table!r} would lie. "
            "Name another lake: -P lake=FOLDER"
        )
    if is_table(path):
        return
    columns = Schema.from_arrow(SCHEMAS[table])
    try:
        DeltaTable.create(
            path,
            columns,
            mode="ignore",
            partition_by=PARTITIONS.get(table),
            configuration=LIKE_SPARK,
        )
    except (DeltaError, OSError) as error:
        if not is_table(path):  # else somebody else has just made it
            raise UserError(f"Table {path!r} cannot be made ({in_a_line(error)})") from error


def is_table(path: str) -> bool:
    """Whether a Delta table lies at a path or URI.

    Raises:
        UserError: Its store cannot be asked.
    """
    try:
        return bool(DeltaTable.is_deltatable(path))
    except (DeltaError, OSError) as error:
        raise UserError(f"Table {path!r} cannot be looked for ({in_a_line(error)})") from error


def no_table(path: str, table: str) -> UserError:
    """The error that a table is not there yet."""
    return UserError(f"There is no table {path!r} yet. Run: mlflow run . -e {MADE_BY[table]}")


def in_a_line(error: Exception) -> str:
    """What an error of deltalake says, in one line without colours."""
    return " ".join(re.sub(r"\x1b\[\d+m", "", str(error)).split())[:300]


def require_columns(found: pa.Schema, table: str, path: str) -> None:
    """Columns may be added to a table of ours; none of ours may lack or change its type.

    But for those that releases after the first have added.

    Raises:
        UserError: One does.
    """
    kinds = dict(zip(found.names, found.types, strict=True))
    for field in SCHEMAS[table]:
        if field.name in ADDED.get(table, ()) and field.name not in kinds:
            continue
        if kinds.get(field.name) != field.type:
            raise UserError(
                f"Table {path!r} is not a table of mlproject: its column {field.name!r} is "
                f"{kinds.get(field.name, 'missing')}. Name another lake: -P lake=FOLDER"
            )


@contextlib.contextmanager
def writing(
    lake: str,
    verb: str,
    *,
    on_wait: Callable[[str], None] = lambda holder: None,
    stop: Callable[[], bool] = lambda: False,
) -> Iterator[None]:
    """Holds the lake's writer lock: one verb at a time writes a local lake.

    Delta's log store for local folders guards the threads of one JVM, not processes. The kernel
    drops the lock with its process, so a kill leaves nothing behind. On object storage Delta's
    own log store decides and nothing is locked.

    Args:
        lake: As `locate` gives it.
        verb: Who writes, told to those who wait.
        on_wait: Called once with the holder's words when another process writes.
        stop: Asked while waiting.

    Raises:
        UserError: It was stopped while waiting.
    """
    if not is_local(lake):
        yield
        return
    lock = filelock.FileLock(_lock_file(lake))
    holder = Path(lake) / ".writer"
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        try:
            on_wait(holder.read_text(encoding="utf-8"))
        except OSError:
            on_wait("another process")  # it has just begun, or is about to end
        try:
            lock.acquire(cancel_check=stop)
        except filelock.Timeout:
            raise UserError("Stopped while another process was writing the lake") from None
    try:
        since = time.strftime("%Y-%m-%d %H:%M:%S")
        holder.write_text(f"{verb} (process {os.getpid()}, since {since})", encoding="utf-8")
        yield
    finally:
        holder.unlink(missing_ok=True)
        lock.release()


def _lock_file(lake: str) -> Path:
    return Path(lake) / ".lock"
