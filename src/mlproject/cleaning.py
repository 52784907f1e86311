"""Takes files whose bytes are safely in the table away from the source."""

import errno
import shutil
from datetime import timedelta
from pathlib import Path

import pyarrow as pa
from pyarrow import fs
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from mlproject import tables
from mlproject.errors import UserError
from mlproject.files import local_path
from mlproject.images import UNCHANGED
from mlproject.session import from_arrow
from mlproject.sources import Listing, open_source


def check(source: str, move_to: str) -> None:
    """Raises UserError when files cannot be moved from a source to a folder.

    Args:
        source: As `Listing.source`.
        move_to: The folder.
    """
    root, _, prefix = open_source(source)
    if prefix:
        raise UserError("clean_source=move works on local folders: name a local source")
    if not move_to:
        raise UserError("clean_source=move needs a folder outside the source: -P clean_to=FOLDER")
    if local_path(move_to).is_relative_to(Path(root).resolve()):
        raise UserError(f"clean_to={move_to!r} lies in the source. Name a folder outside of it")


def ready(spark: SparkSession, lake: str, listed: Listing, after_days: float) -> DataFrame:
    """The listed files that may go: a row holds their bytes, for so long, and their listing.

    Args:
        spark: A session with Delta.
        lake: As `tables.locate` gives it.
        listed: What lies in the source.
        after_days: Days since that was committed.

    Returns:
        The columns of `sources.LISTED`, by path.
    """
    facts = ["path", "size_bytes", "modified_at"]
    images, files = tables.rows(spark, lake, "images"), tables.rows(spark, lake, "files")
    without_bytes = images.where("content is null").select("image_id")
    noted = files.where(F.col("state") == UNCHANGED).select(*facts, "image_id", "at")
    known = images.select(*facts, "image_id", F.col("ingested_at").alias("at")).union(noted)
    due = F.current_timestamp() - F.lit(timedelta(days=after_days))
    safe = known.where(F.col("at") <= due).join(without_bytes, "image_id", "left_anti")
    return from_arrow(spark, listed.files).join(safe, facts, "left_semi").orderBy("path")


def clean(source: str, files: pa.Table, move_to: str = "") -> int:
    """Moves or deletes files of a source that still are as they were listed.

    Args:
        source: As `Listing.source`.
        files: As `ready` gives them.
        move_to: A local folder, in which files keep their place below the source; "" = delete.

    Returns:
        How many went.
    """
    root, filesystem, prefix = open_source(source)
    went = 0
    facts = (files["path"], files["size_bytes"], files["modified_at"].cast(pa.int64()))
    for path, size, modified_at in zip(*(column.to_pylist() for column in facts), strict=True):
        inner = path.removeprefix(prefix)
        info = filesystem.get_file_info(inner)
        if (info.type, info.size) != (fs.FileType.File, size):
            continue
        if info.mtime_ns // 1000 != modified_at:
            continue
        if move_to:
            _move(Path(inner), local_path(move_to) / Path(inner).relative_to(root))
        else:
            filesystem.delete_file(inner)
        went += 1
    return went


def _move(file: Path, target: Path) -> None:
    """Moves a file to a free name, whole or not at all."""
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
        part.rename(place)
        file.unlink()
