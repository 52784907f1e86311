"""How the images of one scoring are divided into waves, each one commit."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from pyspark.sql import Column, DataFrame, Row, Window
from pyspark.sql import functions as F


@dataclass(frozen=True, slots=True)
class Wave:
    """A part of the pending images that is scored and committed at once."""

    times: tuple[int, ...]
    """`ingested_at` of its images, microseconds since 1970: Delta skips files of other times."""
    slice: int
    """Which slice by image_id, from 0."""
    slices: int
    """How many slices; 1 = all images of these times."""
    images: int
    """About how many images."""

    def holds(self) -> Column:
        """A condition on rows of `images`."""
        wanted = F.col("ingested_at").isin([F.timestamp_micros(F.lit(time)) for time in self.times])
        if self.slices == 1:
            return wanted
        return wanted & (F.pmod(F.xxhash64("image_id"), F.lit(self.slices)) == self.slice)

    def of(self, todo: DataFrame) -> DataFrame:
        """The pending images that it holds."""
        return todo.where(self.holds())

    def halves(self, todo: DataFrame) -> list["Wave"]:
        """Two waves of about half its images each, counted; one when it has but one image."""
        slices = 2 * self.slices
        parts = [replace(self, slice=self.slice + more, slices=slices) for more in (0, self.slices)]
        counted = [replace(part, images=part.of(todo).count()) for part in parts]
        found = [part for part in counted if part.images]
        return found[0].halves(todo) if len(found) == 1 < found[0].images else found


def waves(todo: DataFrame, most_images: int, most_bytes: int) -> list[Wave]:
    """Whole ingest commits together up to the limits; a commit above them in slices.

    Args:
        todo: Pending images: image_id, ingested_at, size_bytes.
        most_images: Images a wave, about.
        most_bytes: Bytes a wave, about.
    """
    commits = (
        todo.groupBy(F.unix_micros("ingested_at").alias("time"))
        .agg(F.count("*").alias("images"), F.sum("size_bytes").alias("size_bytes"))
        .orderBy("time")
        .collect()
    )
    found: list[Wave] = []
    together: list[Row] = []
    for commit in commits:
        parts = max(-(-commit.images // most_images), -(-commit.size_bytes // most_bytes))
        if parts > 1:
            share = -(-commit.images // parts)
            found += [Wave((commit.time,), part, parts, share) for part in range(parts)]
            continue
        images = sum(row.images for row in together) + commit.images
        size = sum(row.size_bytes for row in together) + commit.size_bytes
        if together and (images > most_images or size > most_bytes):
            found.append(_whole(together))
            together = []
        together.append(commit)
    return [*found, _whole(together)] if together else found


def first(todo: DataFrame, images: int, size_bytes: int) -> DataFrame:
    """The oldest pending images, as many as both limits allow, and one at least; 0 = no limit."""
    if not images and not size_bytes:
        return todo
    order = Window.orderBy("ingested_at", "path")
    before = order.rowsBetween(Window.unboundedPreceding, -1)
    counted = todo.select(
        "*",
        F.row_number().over(order).alias("place"),
        (F.coalesce(F.sum("size_bytes").over(before), F.lit(0)) + F.col("size_bytes")).alias("sum"),
    )
    if images:
        counted = counted.where(F.col("place") <= images)
    if size_bytes:
        counted = counted.where((F.col("place") == 1) | (F.col("sum") <= size_bytes))
    return counted.drop("place", "sum")


def _whole(commits: Sequence[Row]) -> Wave:
    times = tuple(commit.time for commit in commits)
    return Wave(times, 0, 1, sum(commit.images for commit in commits))
