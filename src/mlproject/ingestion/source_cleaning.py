"""Moves or deletes source files whose bytes are in the table."""

import errno
import shutil
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from pathlib import Path

import pyarrow as pa
from pyarrow import fs
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from mlproject.errors import UserError
from mlproject.ingestion.known_files import UNCHANGED
from mlproject.ingestion.source_listing import Listing
from mlproject.integrations.spark_session import from_arrow
from mlproject.lake import location, snapshots
from mlproject.storage.local_files import local_path
from mlproject.storage.object_storage import filesystem, is_cloud, open_source


def check(source: str, lake: str, how: str, move_to: str) -> None:
    """Raises UserError when a source cannot be cleaned: `how` is move (to a folder) or delete."""
    root, prefix = open_source(source)
    if is_cloud(source):
        raise UserError("clean_source needs a source in a local folder or in S3")
    if how == "delete":
        return
    if prefix:
        raise UserError(
            "clean_source=move needs a source in a local folder. Use clean_source=delete"
        )
    if not move_to:
        raise UserError("clean_source=move needs a folder outside the source: -P clean_to=FOLDER")
    if local_path(move_to).is_relative_to(Path(root).resolve()):
        raise UserError(f"clean_to={move_to!r} lies in the source. Name a folder outside of it")
    if location.is_local(lake) and local_path(move_to).is_relative_to(lake):
        raise UserError(f"clean_to={move_to!r} lies in the lake. Name a folder outside of it")


def ready(spark: SparkSession, lake: str, listed: Listing, after_days: float) -> DataFrame:
    """The listed files that may be cleaned, by path: a row has held their bytes for long enough.

    That is `after_days` since a row of their path, size and modified time was committed.
    """
    facts = ["path", "size_bytes", "modified_at"]
    images, files = (snapshots.rows(spark, lake, table) for table in ("images", "files"))
    with_bytes = images.where("content is not null").select("image_id")
    noted = files.where(F.col("state") == UNCHANGED).select(*facts, "image_id", "at")
    known = images.select(*facts, "image_id", F.col("ingested_at").alias("at")).union(noted)
    due = F.current_timestamp() - F.lit(timedelta(days=after_days))
    safe = known.where(F.col("at") <= due).join(with_bytes, "image_id", "left_semi")
    return from_arrow(spark, listed.files).join(safe, facts, "left_semi").orderBy("path")


def clean(source: str, files: pa.Table, move_to: str = "") -> tuple[int, str]:
    """Moves or deletes files of a source that still are as they were listed.

    In the local folder `move_to` ("" = delete) they keep their place below the source.

    Returns:
        How many were cleaned, and why the first of the others was not ("" = all were).
    """
    root, found, prefix = filesystem(source)
    went, why = 0, ""
    facts = (files["path"], files["size_bytes"], files["modified_at"].cast(pa.int64()))
    for path, size, modified_at in zip(*(column.to_pylist() for column in facts), strict=True):
        inner = path.removeprefix(prefix)
        is_as_listed = partial(_is_as_listed, found, inner, size, modified_at)
        try:
            if not is_as_listed():
                continue
            if move_to:
                target = local_path(move_to) / Path(inner).relative_to(root)
                went += _move(Path(inner), target, is_as_listed)
            else:
                found.delete_file(inner)
                went += 1
        except OSError as error:
            why = why or f"{path}: {error}"
    return went, why


def _is_as_listed(found: fs.FileSystem, path: str, size: int, modified_at: int) -> bool:
    info = found.get_file_info(path)
    is_file = info.type == fs.FileType.File
    return is_file and (size, modified_at) == (info.size, info.mtime_ns // 1000)


def _move(file: Path, target: Path, is_as_listed: Callable[[], bool]) -> bool:
    """Moves a file to a free name, whole or not at all; returns whether it was moved."""
    target.parent.mkdir(parents=True, exist_ok=True)
    place, number = target, 0
    while place.exists():
        number += 1
        place = target.with_name(f"{target.stem}~{number}{target.suffix}")
    try:
        file.rename(place)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        part = place.with_name(f"{place.name}.part")
        shutil.copy2(file, part)
        if not is_as_listed():  # it was overwritten while it was copied
            part.unlink()
            return False
        part.rename(place)
        file.unlink()
    return True
