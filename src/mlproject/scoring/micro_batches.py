"""The pending images of one scoring, divided into micro-batches, each of which is one commit."""

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
from mlproject.lake.queries import quoted
from mlproject.lake.snapshots import Snapshot
from mlproject.scoring.coverage import made_by
from mlproject.scoring.decision import OF_THE_MACHINE, TRIES, Failure, Probe
from mlproject.scoring.workers import WorkerError
from mlproject.versions.version import Version

# Every image once, beside what a version has predicted. Of several files with the same bytes the
# first one stands for all.
_IMAGES = """
  SELECT every.* FROM (
    SELECT image_id, min(ingested_at) AS ingested_at,
      first_value(path ORDER BY ingested_at, path) AS path,
      coalesce(max(size_bytes), 0) AS size_bytes
    FROM images GROUP BY image_id) AS every
  LEFT {kind} JOIN (SELECT image_id FROM predictions WHERE {where}) AS rows
  ON every.image_id = rows.image_id
  ORDER BY every.ingested_at, every.path
"""


Order = Literal["oldest", "newest", "middle", "random"]


@dataclass(frozen=True, slots=True, eq=False)
class MicroBatch:
    """A part of the pending images that is scored and committed at once."""

    pending: pa.Table
    """All pending images, see `pending_images`."""
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
    version: Version, images: Snapshot, predictions: Snapshot, only: Sequence[str] | None
) -> pa.Table:
    """The images without a prediction of a version: image_id, ingested_at, path, size_bytes.

    One row an image, of those in `only` (None = all), the oldest first. Reads no content, and
    starts no Spark.
    """
    found = _joined("ANTI", made_by(version), images, predictions)
    if only is None:
        return found
    return found.filter(pc.is_in(found["image_id"], pa.array(only, pa.string())))


def failed_images(
    version: Version, images: Snapshot, predictions: Snapshot, codes: Sequence[str]
) -> pa.Table:
    """The images for which a version has one of these errors, as `pending_images` gives others."""
    listed = ", ".join(map(quoted, codes))
    return _joined("SEMI", f"{made_by(version)} AND error IN ({listed})", images, predictions)


def predicted_images(
    version: Version, images: Snapshot, predictions: Snapshot, count: int, parts: int
) -> list[MicroBatch]:
    """The newest images that a version has predicted without an error, in parts of `count`."""
    found = _joined("SEMI", f"{made_by(version)} AND error IS NULL", images, predictions)
    ends = range(found.num_rows, 0, -count)[:parts]
    return [MicroBatch(found, max(0, end - count), end) for end in ends]


def _joined(kind: str, where: str, images: Snapshot, predictions: Snapshot) -> pa.Table:
    sql = _IMAGES.format(kind=kind, where=where)
    return queries.query(images.lake, sql, ["images", "predictions"], images, predictions)


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
