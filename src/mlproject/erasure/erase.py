"""Erasing images: what a selection holds, and taking it out of every table for good."""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from pathlib import Path

import pyarrow as pa
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from mlproject.errors import UserError
from mlproject.ingestion.known_files import ERASED
from mlproject.integrations.spark_session import from_arrow
from mlproject.lake import removal, spark_tables
from mlproject.lake.location import IMAGE_ID

# `files` last: a path that stands only there finds its content, at another path, after a kill too.
TABLES = ("predictions", "images", "files")
EXAMPLES = 10  # paths that a plan shows

WHOLE = re.compile(r"/|[a-zA-Z][\w+.-]*:")  # how an absolute path, or a URI, begins
EVERYTHING = re.compile(r"([a-zA-Z][\w+.-]*:)?/*")  # the root of a file system, or of all buckets


@dataclass(frozen=True, slots=True)
class Selection:
    """What a person named, in one of three ways or as a list of paths and image_ids."""

    paths: frozenset[str] = frozenset()
    """Whole paths, as in the column `path`."""
    prefix: str = ""
    """Every path that begins with it, which ends in a slash; empty = none."""
    image_ids: frozenset[str] = frozenset()
    """Sha256 of contents."""


@dataclass(frozen=True, slots=True)
class Planned:
    """What an erase would remove."""

    contents: int
    """Different contents."""
    rows: int
    """Rows of `images` with these contents."""
    elsewhere: int
    """Rows among them at paths that the selection does not name."""
    size_bytes: int
    """Bytes of these rows' files."""
    predictions: dict[str, int]
    """Rows of `predictions` by model version, such as "photos/3"."""
    unknown: int
    """Named paths and image_ids that the lake does not know."""
    examples: list[str]
    """The first of the rows' paths."""


@dataclass(frozen=True, slots=True)
class Erased:
    """What one erase removed."""

    contents: int
    """Different contents that were selected."""
    rows: dict[str, int]
    """Rows deleted, by table."""
    data_files: int
    """Files removed, of all tables."""
    unknown: int
    """Named paths and image_ids that the lake does not know."""


def selection(*, path: str = "", prefix: str = "", image_id: str = "", file: str = "") -> Selection:
    """What exactly one of these names.

    Args:
        path: A path as in the column `path`.
        prefix: A folder: all paths below it.
        image_id: One sha256 as 64 hex digits, or several, comma-separated.
        file: A text file with a path or an image_id a line.

    Raises:
        UserError: None or several are given, a word is malformed, or the file cannot be read.
    """
    words = {"path": path, "prefix": prefix, "image_id": image_id, "file": file}
    given = [name for name, word in words.items() if word]
    if len(given) != 1:
        raise UserError(
            f"Name exactly one of path, prefix, image_id and file (given: "
            f"{', '.join(given) or 'none'}), such as -P path=/photos/1.jpg"
        )
    if file:
        return _listed(file)
    if image_id:
        ids = [word.strip() for word in image_id.split(",")]
        wrong = [word for word in ids if not IMAGE_ID.fullmatch(word)]
        if wrong:
            raise UserError(f"image_id {wrong[0]!r} is no sha256, which has 64 hex digits")
        return Selection(image_ids=frozenset(word.lower() for word in ids))
    if not WHOLE.match(path or prefix):
        raise UserError(
            f"{given[0]} {path or prefix!r} is not whole. Name it as in the column `path` of "
            "images: it begins with '/', or as 's3://...'"
        )
    if path:
        return Selection(paths=frozenset([path]))
    if EVERYTHING.fullmatch(prefix):
        raise UserError(f"prefix {prefix!r} names no folder or bucket: /FOLDER or s3://BUCKET")
    return Selection(prefix=f"{prefix.rstrip('/')}/")


def plan(spark: SparkSession, lake: str, chosen: Selection) -> Planned:
    """What an erase would remove now; writes nothing.

    Args:
        spark: A session with Delta.
        lake: As `lakes.locate` gives it.
        chosen: What to erase.

    Raises:
        UserError: There is no table of images, or nothing in the lake matches.
    """
    ids, unknown = _contents(spark, lake, chosen)
    if not ids.num_rows:
        raise _nothing(lake, chosen)
    gone = from_arrow(spark, ids.select(["image_id"]))
    rows = spark_tables.read(spark, lake, "images").select("path", "image_id", "size_bytes")
    rows = rows.join(gone, "image_id", "left_semi")
    named = _named(rows, chosen).select("path", "image_id", F.lit(1).alias("named")).distinct()
    [(count, elsewhere, size_bytes)] = (
        rows.join(named, ["path", "image_id"], "left")
        .agg(
            F.count("*"),
            F.count_if(F.col("named").isNull()),
            F.coalesce(F.sum("size_bytes"), F.lit(0)),
        )
        .collect()
    )
    said = spark_tables.rows(spark, lake, "predictions").join(gone, "image_id", "left_semi")
    versions = (
        said.groupBy("model_name", "model_version").count().orderBy("model_name", "model_version")
    )
    predictions = {f"{name}/{number}": found for name, number, found in versions.collect()}
    examples = [row.path for row in rows.select("path").orderBy("path").limit(EXAMPLES).collect()]
    return Planned(ids.num_rows, count, elsewhere, size_bytes, predictions, unknown, examples)


def erase(
    spark: SparkSession,
    lake: str,
    chosen: Selection,
    *,
    retention_hours: float = 0,
    on_step: Callable[[int, int], None] = lambda done, total: None,
) -> Erased:
    """Takes the chosen contents out of every table, and the files that hold them.

    The hashes are noted in `erased` first, so that no ingest takes the contents again. After a kill
    the same call finds the contents by their paths in `images` or `files`, and once these are gone
    it finishes what any erase has left.

    Args:
        spark: A session with Delta.
        lake: As `lakes.locate_to_write` gives it.
        chosen: What to erase.
        retention_hours: Files deleted within these hours stay, and can be read by time travel.
        on_step: Told the steps done and the steps to do, after each.

    Raises:
        UserError: There is no table of images, or nothing matches and no erase is unfinished.
    """
    if not 0 <= retention_hours < math.inf:
        raise UserError(f"retention_hours {retention_hours:g} is no number of hours from 0 on")
    ids, unknown = _contents(spark, lake, chosen)
    present = [name for name in TABLES if spark_tables.exists(spark, lake, name)]
    if not ids.num_rows and not _unfinished(spark, lake, present):
        raise _nothing(lake, chosen)
    total = 1 + 2 * len(present)
    _note(spark, lake, ids)
    on_step(1, total)
    rows: dict[str, int] = {}
    for step, name in enumerate(present, start=2):
        gone = from_arrow(spark, ids.select(["image_id"]))
        if name != "images":
            gone = gone.unionByName(_late(spark, lake, name)).distinct()
        rows[name] = removal.delete(spark, f"{lake}/{name}", gone)
        on_step(step, total)
    data_files = 0
    for step, name in enumerate(present, start=2 + len(present)):
        data_files += removal.vacuum(spark, f"{lake}/{name}", retention_hours)
        on_step(step, total)
    if not ids.num_rows and not data_files and not any(rows.values()):
        raise _nothing(lake, chosen)
    return Erased(ids.num_rows, rows, data_files, unknown)


def _listed(file: str) -> Selection:
    try:
        text = Path(file).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"File {file!r} cannot be read ({error})") from error
    lines = [line.removesuffix("\r") for line in text.split("\n")]
    words = {line: number for number, line in enumerate(lines, start=1) if line.strip()}
    for line, number in words.items():
        if not WHOLE.match(line) and not IMAGE_ID.fullmatch(line):
            raise UserError(
                f"Line {number} of {file!r} is neither a path, which begins with '/' or as "
                f"'s3://...', nor an image_id of 64 hex digits: {line!r}"
            )
    if not words:
        raise UserError(f"File {file!r} names nothing: it needs a path or an image_id a line")
    ids = {line for line in words if IMAGE_ID.fullmatch(line)}
    return Selection(frozenset(words.keys() - ids), "", frozenset(line.lower() for line in ids))


def _nothing(lake: str, chosen: Selection) -> UserError:
    count = len(chosen.paths) + len(chosen.image_ids)
    what = f"a path below {chosen.prefix!r}" if chosen.prefix else f"any of the {count} named"
    if count == 1:
        what = repr(*chosen.paths, *chosen.image_ids)
    return UserError(
        f"Lake {lake!r} does not know {what}. If it was erased before, nothing of it is left. "
        "Paths are named as in the column `path` of images"
    )


def _column(spark: SparkSession, name: str, values: frozenset[str]) -> DataFrame:
    return from_arrow(spark, pa.table({name: pa.array(sorted(values), pa.string())}))


def _named(rows: DataFrame, chosen: Selection) -> DataFrame:
    """The rows that the selection names itself, by path or by content; some of them twice."""
    if chosen.prefix:
        return rows.where(F.col("path").startswith(chosen.prefix))
    named = {"path": chosen.paths, "image_id": chosen.image_ids}
    parts = [
        rows.join(_column(rows.sparkSession, name, values), name, "left_semi")
        for name, values in named.items()
        if values
    ]
    return reduce(DataFrame.unionByName, parts)


def _contents(spark: SparkSession, lake: str, chosen: Selection) -> tuple[pa.Table, int]:
    """The contents that the lake knows by the selection: image_id, size_bytes (null = unknown).

    Returns:
        And how many of the named paths and image_ids it does not know.
    """
    seen = ["path", "image_id", "size_bytes"]
    rows = spark_tables.read(spark, lake, "images").select(*seen)
    rows = rows.unionByName(spark_tables.rows(spark, lake, "files").select(*seen))
    none = F.lit(None)
    for name, size in (("predictions", none.cast("long")), ("erased", F.col("size_bytes"))):
        if chosen.image_ids:
            known = spark_tables.rows(spark, lake, name).withColumn("path", none.cast("string"))
            rows = rows.unionByName(known.withColumn("size_bytes", size).select(*seen))
    found = (
        _named(rows, chosen)
        .groupBy("image_id")
        .agg(
            F.max("size_bytes").alias("size_bytes"),
            (F.collect_set("path") if chosen.paths else none.cast("array<string>")).alias("paths"),
        )
        .toArrow()
    )
    paths = set().union(*filter(None, found["paths"].to_pylist()))
    unknown = chosen.paths - paths, chosen.image_ids.difference(found["image_id"].to_pylist())
    return found.drop_columns("paths"), sum(map(len, unknown))


def _note(spark: SparkSession, lake: str, ids: pa.Table) -> None:
    """Adds hashes to `erased`, each once."""
    while True:
        since = spark_tables.snapshot(spark, lake, "erased", "erase")
        known = since.read(spark).select("image_id")
        new = from_arrow(spark, ids).join(known, "image_id", "left_anti")
        noted = new.withColumn("at", F.current_timestamp())
        if new.isEmpty() or spark_tables.append(noted, since):
            return


def _unfinished(spark: SparkSession, lake: str, present: list[str]) -> bool:
    """Whether an erase was killed, or kept files for a time, or rows came after it."""
    return spark_tables.exists(spark, lake, "erased") and any(
        removal.is_unfinished(spark, f"{lake}/{name}") or not _late(spark, lake, name).isEmpty()
        for name in present
    )


def _late(spark: SparkSession, lake: str, table: str) -> DataFrame:
    """Erased contents that a table has and `images` not: after a kill, or another verb's work."""
    erased = spark_tables.read(spark, lake, "erased").select("image_id")
    images = spark_tables.read(spark, lake, "images").select("image_id")
    late = erased.join(images, "image_id", "left_anti")
    rows = spark_tables.read(spark, lake, table)
    if table == "files":
        rows = rows.where(F.col("state") != ERASED)
    return late.join(rows.select("image_id"), "image_id", "left_semi")
