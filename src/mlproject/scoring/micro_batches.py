"""The pending images of one scoring, in parts and micro-batches, each of which is one commit."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from mlproject.integrations.spark_session import from_arrow
from mlproject.lake import queries
from mlproject.lake.queries import instant, quoted
from mlproject.lake.snapshots import Snapshot
from mlproject.scoring.coverage import Coverage, Tables, complete_up_to, made_by
from mlproject.scoring.decision import OF_THE_MACHINE, TRIES, Failure, Probe
from mlproject.scoring.workers import WorkerError
from mlproject.versions.version import Version

# Rows of `images` whose pending ones are found at once, about: the driver holds these.
PART_ROWS = 1_000_000

# The images of some rows that a version has (SEMI) or has not (ANTI) predicted.
_IMAGES = """
  SELECT found.* FROM ({images}) AS found
  LEFT {kind} JOIN (SELECT image_id FROM predictions WHERE {where}) AS rows
  ON found.image_id = rows.image_id
  LEFT ANTI JOIN (SELECT image_id FROM images WHERE {earlier}) AS earlier
  ON found.image_id = earlier.image_id
  ORDER BY ingested_at, path
"""


Order = Literal["oldest", "newest", "middle", "random"]


@dataclass(frozen=True, slots=True)
class Part:
    """Rows of `images` by their time of ingest, in which images are looked for at once."""

    rows: str
    """An SQL condition: those in the part."""
    earlier: str
    """An SQL condition: those in the parts before it."""
    later_rows: int
    """Rows in the parts after it."""


EVERY = Part("true", "false", 0)  # all rows of the table


@dataclass(frozen=True, slots=True, eq=False)
class MicroBatch:
    """A part of the pending images that is scored and committed at once."""

    pending: pa.Table
    """Pending images, see `pending_images`."""
    start: int
    """The first of its rows."""
    stop: int
    """The row after its last one."""

    @property
    def images(self) -> int:
        """How many images."""
        return self.stop - self.start

    def image_ids(self) -> pa.ChunkedArray:
        """The ids of its images."""
        return self.pending["image_id"].slice(self.start, self.images)

    def ingested(self) -> tuple[datetime, datetime]:
        """When the first and the last of them were ingested."""
        times = self.pending["ingested_at"].slice(self.start, self.images)
        least, most = pc.min_max(times).as_py().values()
        return least, most

    def rows(self, images: DataFrame) -> DataFrame:
        """The rows of the table of images that are in it."""
        mine = self.pending.slice(self.start, self.images)
        times = pc.unique(mine["ingested_at"]).cast(pa.int64()).to_pylist()
        # Delta skips data files of other times.
        wanted = F.col("ingested_at").isin([F.timestamp_micros(F.lit(time)) for time in times])
        keys = from_arrow(images.sparkSession, mine.select(["image_id", "path"]))
        return images.where(wanted).join(F.broadcast(keys), ["image_id", "path"], "left_semi")

    def halves(self) -> list["MicroBatch"]:
        """Two micro-batches of about half its images each; itself when it has one image."""
        middle = (self.start + self.stop) // 2
        parts = [replace(self, stop=middle), replace(self, start=middle)]
        return [part for part in parts if part.images]

    def contains(self, other: "MicroBatch") -> bool:
        """Whether the other is it, or came from it by halving."""
        return self.start <= other.start and other.stop <= self.stop


@dataclass(frozen=True, slots=True)
class Attempt:
    """A micro-batch that waits to be scored, for the first time or again."""

    batch: MicroBatch
    """The micro-batch."""
    crashes: int = 0
    """How often it has failed, other than as the version's code raised."""
    error: WorkerError | None = None
    """Why it failed: the last time, or once by the machine; None = it has not failed yet."""
    probe: Probe = "none"
    """Whether images that the version had predicted were scored again since, and how that went."""
    is_part: bool = False
    """Whether it came from a micro-batch that crashed workers, by halving."""
    is_blamed: bool = False
    """Whether its image gets the error `model_failed` without being scored."""

    @property
    def is_suspect(self) -> bool:
        """Whether it crashes workers, and is not scored again as a whole."""
        return self.crashes == TRIES

    def halves(self) -> list["Attempt"]:
        """Its halves, to be scored for the first time."""
        return [Attempt(half, is_part=True) for half in self.batch.halves()]

    def failed(self, error: WorkerError) -> "Attempt":
        """It, after it failed once more; a fault of the machine once is not blamed on a version."""
        if self.is_blamed:  # no version has run
            error = WorkerError("machine", str(error))
        if error.fault == "raised":
            return replace(self, error=error)
        errors = [error, self.error] if self.error else [error]
        known = (one for kind in OF_THE_MACHINE for one in errors if one.fault == kind)
        return replace(self, crashes=self.crashes + 1, error=next(known, error))

    def failure(self, **scoring: Any) -> Failure:
        """What was observed of it, with the facts about its scoring; it has failed before."""
        fault = self.error.fault if self.error else "raised"
        return Failure(fault, self.crashes, self.batch.images, probe=self.probe, **scoring)


def pending_images(
    version: Version, tables: Tables, part: Part, only: Sequence[str] | None = None
) -> pa.Table:
    """The images in a part without a prediction of a version.

    Reads no content, and starts no Spark.

    Returns:
        image_id, ingested_at, path and size_bytes: one row an image, of the first of its files, of
        those in `only` (None = all), the oldest first.
    """
    found = _joined("ANTI", made_by(version), tables, part)
    if only is None:
        return found
    return found.filter(pc.is_in(found["image_id"], pa.array(only, pa.string())))


def pending_bytes(version: Version, tables: Tables, complete: Coverage | None = None) -> int:
    """Bytes of the images without a prediction of a version.

    `complete` are earlier counts by which it had predicted all; None = not known.
    """
    found = (
        pending_images(version, tables, part)["size_bytes"]
        for part in parts(tables.images, complete_up_to(tables, version, complete))
    )
    return sum(pc.sum(sizes).as_py() or 0 for sizes in found)


def failed_images(version: Version, tables: Tables, codes: Sequence[str]) -> pa.Table:
    """The images for which a version has one of these errors, as `pending_images` gives others."""
    where = f"{made_by(version)} AND error IN ({', '.join(map(quoted, codes))})"
    return pa.concat_tables(_joined("SEMI", where, tables, part) for part in parts(tables.images))


def predicted_images(
    version: Version, tables: Tables, count: int, batches: int
) -> list[MicroBatch]:
    """The newest images that a version has predicted without an error, `count` in each of some."""
    where, found = f"{made_by(version)} AND error IS NULL", list[MicroBatch]()
    for part in reversed(parts(tables.images)):
        images = _joined("SEMI", where, tables, part)
        ends = range(images.num_rows, 0, -count)
        found += [MicroBatch(images, max(0, end - count), end) for end in ends]
        if len(found) >= batches:
            break
    return found[:batches]


def parts(images: Snapshot, since: int = -1) -> list[Part]:
    """Parts of `images` of about `PART_ROWS` rows, in the order of ingest.

    `since` is a version of which nothing is looked for; -1 = there is none.
    """
    added = queries.appended(images, since) if since >= 0 else None
    if added is not None and not added:
        return []
    began = queries.first_ingest(added) if added else None
    first = "true" if began is None else f"ingested_at >= {instant(began)}"
    files = sorted(queries.filled_at(images, "ingested_at", began))
    starts, rows = [0], 0
    for place, (_, count) in enumerate(files):
        if rows + count > PART_ROWS and rows and files[place][0] != files[starts[-1]][0]:
            starts.append(place)
            rows = 0
        rows += count
    found = []
    for start, end in pairwise([*starts, len(files)]):
        conditions, earlier = [first], "false"
        if start:
            conditions.append(f"ingested_at >= {instant(files[start][0])}")
            earlier = f"{first} AND ingested_at < {instant(files[start][0])}"
        if end < len(files):
            conditions.append(f"ingested_at < {instant(files[end][0])}")
        later = sum(count for _, count in files[end:])
        found.append(Part(" AND ".join(conditions), earlier, later))
    return found


def _joined(kind: str, where: str, tables: Tables, part: Part) -> pa.Table:
    found = queries.first_files(f"SELECT * FROM images WHERE {part.rows}")
    sql = _IMAGES.format(images=found, kind=kind, where=where, earlier=part.earlier)
    return tables.query(sql)


def oldest(pending: pa.Table, images: int, size_bytes: int) -> pa.Table:
    """The oldest pending images, as many as both limits allow, and one at least; 0 = no limit."""
    count = pending.num_rows
    if size_bytes:
        up_to = np.cumsum(pending["size_bytes"].to_numpy())
        count = max(1, int(np.searchsorted(up_to, size_bytes, side="right")))
    return pending.slice(0, min(count, images or count))


def in_order(batches: Sequence[MicroBatch], order: Order) -> list[MicroBatch]:
    """Micro-batches in the order in which they are scored.

    The oldest come first, unless another scorer of the version was faster with one of them: then
    from the other end, after the next time from the middle, and then at random. So several scorers
    rarely compute the same one.
    """
    if order == "random":
        return random.sample(batches, len(batches))
    start = len(batches) // 2 if order == "middle" else 0
    rotated = [*batches[start:], *batches[:start]]
    return rotated[::-1] if order == "newest" else rotated


def divide(pending: pa.Table, max_images: int, max_bytes: int) -> list[MicroBatch]:
    """Whole ingest commits together up to about the limits; a commit above them in slices."""
    times = pending["ingested_at"].cast(pa.int64()).to_numpy()
    sizes = np.concatenate([[0], np.cumsum(pending["size_bytes"].to_numpy())])
    ends = [*(np.flatnonzero(np.diff(times)) + 1).tolist(), len(times)] if len(times) else []
    found: list[MicroBatch] = []
    start = begin = 0  # of the micro-batch, of the commit
    for end in ends:
        images, size = end - begin, int(sizes[end] - sizes[begin])
        parts = max(-(-images // max_images), -(-size // max_bytes))
        if begin > start and (end - start > max_images or sizes[end] - sizes[start] > max_bytes):
            found.append(MicroBatch(pending, start, begin))
            start = begin
        if parts > 1:
            share = -(-images // parts)
            bounds = pairwise([*range(begin, end, share), end])
            found += [MicroBatch(pending, first, last) for first, last in bounds]
            start = end
        begin = end
    return [*found, MicroBatch(pending, start, len(times))] if start < len(times) else found
