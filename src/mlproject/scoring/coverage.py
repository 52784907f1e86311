"""How many of the images a version has predicted, and with how many errors; no Spark."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from mlproject.inference.errors import CHANGED, GONE, MODEL_FAILED
from mlproject.lake import queries, snapshots
from mlproject.lake.queries import quoted
from mlproject.lake.snapshots import Snapshot
from mlproject.versions.version import Version

# Errors that are not caused by a version: the ingested bytes are gone.
NO_BYTES = (GONE, CHANGED)
# Errors that may be others when the image is scored again.
RETRYABLE = (MODEL_FAILED, GONE, CHANGED)

# Every image once, beside the version's prediction of it. Reads ids, sizes and errors only.
_PREDICTED = """
  FROM (SELECT image_id, max(size_bytes) AS size_bytes, min(error) AS read_error
    FROM images GROUP BY image_id) AS every
  LEFT JOIN (SELECT image_id, 1 AS predicted, error FROM predictions WHERE {version}) AS rows
  ON every.image_id = rows.image_id
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


def newest_images(lake: str) -> Snapshot:
    """The newest version of the table of images; UserError where there is none yet."""
    return snapshots.required(lake, "images")


def count(lake: str, version: Version, images: Snapshot) -> tuple[Coverage, int]:
    """The coverage of a version, and the bytes of the images that it has not predicted."""
    sql = f"""SELECT count(*) AS images, count(predicted) AS predicted, count(error) AS errors,
        coalesce(sum(CASE WHEN predicted IS NULL THEN size_bytes END), 0) AS missing_bytes
        {_PREDICTED.format(version=made_by(version))}"""
    row = queries.query(lake, sql, ["images", "predictions"], images).to_pylist()[0]
    counted = Coverage(row["images"], row["predicted"], row["errors"], images.version)
    return counted, row["missing_bytes"]


def count_errors(
    lake: str, version: Version, before: Version | None, images: Snapshot
) -> ErrorCounts:
    """Errors of a version on the images that were readable before it.

    These are the images that `before` predicted without an error; None = that ingest has read.
    """
    readable = "read_error IS NULL"
    if before is not None:
        readable = (
            "every.image_id IN (SELECT image_id FROM predictions"
            f" WHERE {made_by(before)} AND error IS NULL)"
        )
    sql = f"""SELECT count(*) AS readable, count(predicted) AS predicted,
        count(CASE WHEN error NOT IN {NO_BYTES} THEN 1 END) AS errors,
        count(CASE WHEN error IN {NO_BYTES} THEN 1 END) AS lost
        {_PREDICTED.format(version=made_by(version))} WHERE {readable}"""
    row = queries.query(lake, sql, ["images", "predictions"], images).to_pylist()[0]
    return ErrorCounts(**row)


def stored_errors(
    lake: str, version: Version, images: Snapshot, codes: Sequence[str] = RETRYABLE
) -> StoredErrors:
    """The errors of these codes that a version has for images that are in the table."""
    listed = ", ".join(map(quoted, codes)) or "''"
    sql = f"""SELECT error, count(*) AS images, min(scored_at) AS since, max(scored_at) AS until
        FROM (SELECT * FROM predictions WHERE {made_by(version)} AND error IN ({listed})) AS rows
        LEFT SEMI JOIN images ON images.image_id = rows.image_id GROUP BY error ORDER BY error"""
    rows = queries.query(lake, sql, ["images", "predictions"], images).to_pylist()
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
