"""How many of the images a version has predicted, and with how many errors; no Spark."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TypeVar

import pyarrow as pa

from mlproject.inference.errors import CHANGED, GONE, MODEL_FAILED
from mlproject.lake import queries, snapshots
from mlproject.lake.queries import MissingFilesError, quoted
from mlproject.lake.snapshots import Snapshot
from mlproject.versions.version import Version

Found = TypeVar("Found")

FILLER = "score:"  # what fills `predictions`, before the model id
# Errors that are not caused by a version: the ingested bytes are gone.
NO_BYTES = (GONE, CHANGED)
# Errors that may be others when the image is scored again.
RETRYABLE = (MODEL_FAILED, GONE, CHANGED)

# Every image once, beside the version's prediction of it. Reads ids and errors only.
_PREDICTED = """
  FROM (SELECT image_id, min(error) AS read_error FROM images WHERE {ids} GROUP BY 1) AS every
  LEFT JOIN (SELECT image_id, 1 AS predicted, error FROM predictions WHERE {version} AND {ids})
  AS rows ON every.image_id = rows.image_id
"""


@dataclass(frozen=True, slots=True)
class Coverage:
    """How many of the images a version has predicted, counted at one version of `images`."""

    images: int
    """Different images in the table."""
    predicted: int
    """Images among them with a prediction of the version; an error counts as one."""
    errors: int
    """Images among the predicted ones that have an error."""
    images_version: int
    """The Delta version of `images` that was counted."""
    images_table: str = ""
    """Delta's id of that table; empty = not known."""
    predictions_version: int = -1
    """The Delta version of `predictions` that was counted; -1 = there was no table."""
    predictions_table: str = ""
    """Delta's id of that table."""

    @property
    def counts(self) -> tuple[int, int, int]:
        """Images, those predicted, and those with an error."""
        return self.images, self.predicted, self.errors

    @property
    def missing(self) -> int:
        """Images without a prediction of the version."""
        return self.images - self.predicted

    @property
    def share(self) -> float:
        """Share of the images that are predicted, 0..1; 1 when there are none."""
        return self.predicted / self.images if self.images else 1.0


@dataclass(frozen=True, slots=True)
class ErrorCounts:
    """Errors of a version on the images that were readable before it."""

    readable: int
    """Images that the version before predicted without an error; without one, that ingest read."""
    predicted: int
    """Images among them with a prediction of the version; an error counts as one."""
    errors: int
    """Images among the predicted ones with an error of the version's."""
    lost: int
    """Images among the predicted ones whose files are gone or changed since."""

    @property
    def rate(self) -> float:
        """Errors as a share of the predicted images that still have bytes, 0..1."""
        return self.errors / max(1, self.predicted - self.lost)

    @property
    def lost_rate(self) -> float:
        """Share of the predicted images that would be served without a label, 0..1."""
        return (self.errors + self.lost) / max(1, self.predicted)


@dataclass(frozen=True, slots=True)
class StoredErrors:
    """Images for which a version has an error that may be another when they are scored again."""

    codes: dict[str, int]
    """Images by error code, by name."""
    since: datetime | None
    """When the first of these errors was found, UTC; None = there are none."""
    until: datetime | None
    """When the last of them was found."""

    @property
    def images(self) -> int:
        """Images with one of these errors."""
        return sum(self.codes.values())

    def summary(self) -> str:
        """The counts and times in one line."""
        counts = ", ".join(f"{code}: {count}" for code, count in self.codes.items())
        times = {f"{at:%Y-%m-%dT%H:%M:%SZ}": None for at in (self.since, self.until) if at}
        return f"{counts}, found {' to '.join(times)}" if counts else "none"


NONE_STORED = StoredErrors({}, None, None)


@dataclass(frozen=True, slots=True)
class Tables:
    """The versions of two tables that counts read."""

    images: Snapshot
    """Of the table of images."""
    predictions: Snapshot | None
    """Of the predictions, not newer: the images of all of them are there; None = no table yet."""

    @property
    def lake(self) -> str:
        """The folder or URI of the lake."""
        return self.images.lake

    def query(self, sql: str) -> pa.Table:
        """The rows that a query of `images` and `predictions` finds in these versions."""
        return queries.query(self.lake, sql, images=self.images, predictions=self.predictions)

    def totals(self, sql: Callable[[str], str]) -> dict[str, int]:
        """The one row of counts by ids, added over the ranges of `queries.in_ranges`."""
        rows = queries.in_ranges(self.lake, sql, self.images, predictions=self.predictions)
        return dict(queries.summed(rows).to_pylist()[0])


def newest_tables(lake: str) -> Tables:
    """The newest versions of both tables; UserError where there are no images yet."""
    predictions = snapshots.newest(lake, "predictions")
    return Tables(snapshots.required(lake, "images"), predictions)


def read_newest(lake: str, read: Callable[[Tables], Found]) -> Found:
    """What `read` finds in the newest versions of both tables.

    It is called again with newer ones when an erasure removes files of these meanwhile.
    """
    while True:
        with suppress(MissingFilesError):
            return read(newest_tables(lake))


def count(tables: Tables, version: Version, known: Coverage | None = None) -> Coverage:
    """The coverage of a version.

    With earlier counts of the version, `known`, only what was added since is read, if the logs of
    both tables tell; else every id is counted.
    """
    return _counted_since(tables, version, known) or count_all(tables, version)


def count_all(tables: Tables, version: Version) -> Coverage:
    """The coverage of a version, counted from every id in both tables."""
    made = made_by(version)
    row = tables.totals(
        lambda ids: (
            f"""SELECT count(*) AS images, count(predicted) AS predicted,
        count(error) AS errors, (SELECT count(*) FROM predictions WHERE {made} AND {ids}) AS rows
        {_PREDICTED.format(version=made, ids=ids)}"""
        )
    )
    found = _coverage(tables, row["images"], row["predicted"], row["errors"])
    # A killed erasure may leave predictions of images that are ingested again later.
    return found if row["rows"] == row["predicted"] else replace(found, images_table="")


def _counted_since(tables: Tables, version: Version, known: Coverage | None) -> Coverage | None:
    """The coverage by earlier counts and what was added since; None = that cannot be told."""
    if known is None or not _are_those(tables, known):
        return None
    images = queries.new_images(tables.images, known.images_version)
    added = _predicted_since(tables.predictions, version, known.predictions_version)
    if images is None or added is None:
        return None
    predicted, errors = added
    return _coverage(
        tables,
        known.images + images.num_rows,
        known.predicted + predicted,
        known.errors + errors,
    )


def complete_up_to(tables: Tables, version: Version, complete: Coverage | None) -> int:
    """The version of `images` whose images a version has all predicted.

    By `complete`, counts by which it had; -1 = not known, as where predictions were removed since.
    """
    if complete is None or not _are_those(tables, complete):
        return -1
    added = _predicted_since(tables.predictions, version, complete.predictions_version)
    return complete.images_version if added else -1


def _are_those(tables: Tables, known: Coverage) -> bool:
    """Whether earlier counts are of the same tables, which may have been removed and made anew."""
    of_predictions = tables.predictions.table_id if tables.predictions else ""
    return tables.images.table_id == known.images_table and (
        known.predictions_version < 0 or of_predictions == known.predictions_table
    )


def _predicted_since(
    predictions: Snapshot | None, version: Version, since: int
) -> tuple[int, int] | None:
    """Rows of a version that were added since a version of the table, and those with an error.

    None = the log does not tell, or another program has added rows: those of `score` are of images
    that have no other row of the version (decision 3).
    """
    if predictions is None:
        return 0, 0
    files = queries.appended(predictions, since)
    if files is None:
        return None
    rows = errors = 0
    partition = {"model_name": version.name, "model_version": str(version.version)}
    for file in (file for file in files if file.partition_values == partition):
        nulls = file.nulls("error")
        if nulls is None or not file.operation.startswith(FILLER):
            return None
        if file.operation == f"{FILLER}{version.model_id}":
            rows += file.rows
            errors += file.rows - nulls
    return rows, errors


def _coverage(tables: Tables, images: int, predicted: int, errors: int) -> Coverage:
    predictions = tables.predictions
    return Coverage(
        images,
        predicted,
        errors,
        tables.images.version,
        tables.images.table_id,
        predictions.version if predictions else -1,
        predictions.table_id if predictions else "",
    )


def count_errors(tables: Tables, version: Version, before: Version | None) -> ErrorCounts:
    """Errors of a version on the images that were readable before it.

    These are the images that `before` predicted without an error; None = that ingest has read.
    """

    def sql(ids: str) -> str:
        readable = "read_error IS NULL"
        if before is not None:
            those = f"{made_by(before)} AND error IS NULL AND {ids}"
            readable = f"every.image_id IN (SELECT image_id FROM predictions WHERE {those})"
        return f"""SELECT count(*) AS readable, count(predicted) AS predicted,
            count(CASE WHEN error NOT IN {NO_BYTES} THEN 1 END) AS errors,
            count(CASE WHEN error IN {NO_BYTES} THEN 1 END) AS lost
            {_PREDICTED.format(version=made_by(version), ids=ids)} WHERE {readable}"""

    return ErrorCounts(**tables.totals(sql))


def stored_errors(
    tables: Tables, version: Version, codes: Sequence[str] = RETRYABLE
) -> StoredErrors:
    """The errors of these codes that a version has for images that are in the table."""
    listed = ", ".join(map(quoted, codes)) or "''"
    sql = f"""SELECT error, count(*) AS images, min(scored_at) AS since, max(scored_at) AS until
        FROM (SELECT * FROM predictions WHERE {made_by(version)} AND error IN ({listed})) AS rows
        LEFT SEMI JOIN images ON images.image_id = rows.image_id GROUP BY error ORDER BY error"""
    rows = tables.query(sql).to_pylist()
    return StoredErrors(
        {row["error"]: row["images"] for row in rows},
        min((row["since"] for row in rows), default=None),
        max((row["until"] for row in rows), default=None),
    )


def has_predicted(lake: str, version: Version) -> bool:
    """Whether a version has predicted an image without an error."""
    sql = f"SELECT 1 FROM predictions WHERE {made_by(version)} AND error IS NULL LIMIT 1"
    return bool(queries.query(lake, sql, ["predictions"]).num_rows)


def made_by(version: Version) -> str:
    """A SQL condition on rows of `predictions`: those that this version made."""
    name, model_id = quoted(version.name), quoted(version.model_id)
    return f"model_name = {name} AND model_version = {version.version} AND model_id = {model_id}"
