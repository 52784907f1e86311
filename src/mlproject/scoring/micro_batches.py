"""The pending images of one scoring, divided into micro-batches, each of which is one commit."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from pyspark.sql import DataFrame, Row, Window
from pyspark.sql import functions as F

from mlproject.scoring.decision import TRIES, Failure
from mlproject.scoring.workers import WorkerError


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """A part of the pending images that is scored and committed at once."""

    times: tuple[int, ...]
    """`ingested_at` of its images, microseconds since 1970: Delta skips files of other times."""
    slice: int
    """Which slice by image_id, from 0."""
    slices: int
    """How many slices; 1 = all images of these times."""
    images: int
    """About how many images."""

    def rows(self, images: DataFrame) -> DataFrame:
        """The rows of `images`, or of pending images, that are in it."""
        wanted = F.col("ingested_at").isin([F.timestamp_micros(F.lit(time)) for time in self.times])
        if self.slices > 1:
            wanted &= F.pmod(F.xxhash64("image_id"), F.lit(self.slices)) == self.slice
        return images.where(wanted)

    def halves(self, pending: DataFrame) -> list["MicroBatch"]:
        """Two micro-batches of about half its images each, counted; one when it has one image."""
        slices = 2 * self.slices
        parts = [replace(self, slice=self.slice + more, slices=slices) for more in (0, self.slices)]
        counted = [replace(part, images=part.rows(pending).count()) for part in parts]
        found = [part for part in counted if part.images]
        return found[0].halves(pending) if len(found) == 1 < found[0].images else found

    def contains(self, other: "MicroBatch") -> bool:
        """Whether the other is it, or came from it by halving."""
        finer = other.slices % self.slices == 0 and other.slice % self.slices == self.slice
        return self.times == other.times and finer


@dataclass(frozen=True, slots=True)
class Attempt:
    """A micro-batch that waits to be scored, for the first time or again."""

    batch: MicroBatch
    """The micro-batch."""
    crashes: int = 0
    """How often it has crashed or hung."""
    error: WorkerError | None = None
    """Why it failed last; None = it has not failed yet."""

    @property
    def is_suspect(self) -> bool:
        """Whether it is a single image that crashes workers, and is not scored again."""
        return self.crashes == TRIES

    def failure(self, **scoring: Any) -> Failure:
        """What was observed of it, with the facts about its scoring; it has failed before."""
        fault = self.error.fault if self.error else "raised"
        return Failure(fault, self.crashes, self.batch.images, **scoring)


def pending_images(
    images: DataFrame, predictions: DataFrame, only: Sequence[str] | None
) -> DataFrame:
    """The images without a prediction: image_id, ingested_at, path, size_bytes.

    One row an image, of those in `only` (None = all): of several files with the same bytes the
    first one stands for all. Reads no content. `predictions` are those of one version.
    """
    first = F.min(F.struct("ingested_at", "path", "size_bytes")).alias("first")
    distinct = images.groupBy("image_id").agg(first).select("image_id", "first.*")
    pending = distinct.join(predictions.select("image_id"), "image_id", "left_anti")
    if only is None:
        return pending
    ids = [(image_id,) for image_id in only]
    chosen = images.sparkSession.createDataFrame(ids, "image_id string")
    return pending.join(F.broadcast(chosen), "image_id", "left_semi")


def divide(pending: DataFrame, max_images: int, max_bytes: int) -> list[MicroBatch]:
    """Whole ingest commits together up to about the limits; a commit above them in slices."""
    commits = (
        pending.groupBy(F.unix_micros("ingested_at").alias("time"))
        .agg(F.count("*").alias("images"), F.sum("size_bytes").alias("size_bytes"))
        .orderBy("time")
        .collect()
    )
    found: list[MicroBatch] = []
    together: list[Row] = []
    for commit in commits:
        parts = max(-(-commit.images // max_images), -(-commit.size_bytes // max_bytes))
        if parts > 1:
            share = -(-commit.images // parts)
            found += [MicroBatch((commit.time,), part, parts, share) for part in range(parts)]
            continue
        images = sum(row.images for row in together) + commit.images
        size = sum(row.size_bytes for row in together) + commit.size_bytes
        if together and (images > max_images or size > max_bytes):
            found.append(_whole(together))
            together = []
        together.append(commit)
    return [*found, _whole(together)] if together else found


def oldest(pending: DataFrame, images: int, size_bytes: int) -> DataFrame:
    """The oldest pending images, as many as both limits allow, and one at least; 0 = no limit."""
    if not images and not size_bytes:
        return pending
    order = Window.orderBy("ingested_at", "path")
    before = order.rowsBetween(Window.unboundedPreceding, -1)
    counted = pending.select(
        "*",
        F.row_number().over(order).alias("place"),
        (F.coalesce(F.sum("size_bytes").over(before), F.lit(0)) + F.col("size_bytes")).alias("sum"),
    )
    if images:
        counted = counted.where(F.col("place") <= images)
    if size_bytes:
        counted = counted.where((F.col("place") == 1) | (F.col("sum") <= size_bytes))
    return counted.drop("place", "sum")


def _whole(commits: Sequence[Row]) -> MicroBatch:
    times = tuple(commit.time for commit in commits)
    return MicroBatch(times, 0, 1, sum(commit.images for commit in commits))
