"""How much of the images a version has answered, and how well; ids and errors only, no Spark."""

from dataclasses import dataclass

from mlproject.inference.errors import CHANGED, GONE
from mlproject.lake import tables
from mlproject.lake.location import Snapshot, no_table
from mlproject.lake.tables import quoted
from mlproject.versions.version import Version

NO_BYTES = (GONE, CHANGED)  # errors that are no version's: what was there is there no more

# Every image once, and what the version said of it.
ANSWERED = """
  FROM (SELECT image_id, max(size_bytes) AS size_bytes, min(error) AS unread
    FROM images GROUP BY image_id) AS every
  LEFT JOIN (SELECT image_id, 1 AS answered, error FROM predictions WHERE {version}) AS said
  ON every.image_id = said.image_id
"""


@dataclass(frozen=True, slots=True)
class Covered:
    """How much of the images a version has answered, counted on one version of `images`."""

    images: int
    """Different images that there were."""
    answered: int
    """Images among them that the version has answered, an error being an answer too."""
    errors: int
    """Images among those that got an error."""
    images_version: int
    """The Delta version of `images` that was counted."""

    @property
    def missing(self) -> int:
        """Images that the version has not answered."""
        return self.images - self.answered

    @property
    def coverage(self) -> float:
        """Share of the images that it has answered, 0..1; 1 when there are none."""
        return self.answered / self.images if self.images else 1.0


def newest_images(lake: str) -> Snapshot:
    """The newest version of the table of images.

    Raises:
        UserError: There is none yet, or it cannot be read.
    """
    found = tables.newest(lake, "images")
    if found is None:
        raise no_table(f"{lake}/images", "images")
    return found


def count(lake: str, version: Version, images: Snapshot) -> tuple[Covered, int]:
    """The counts of a version's answers, and the bytes of the images that it has not answered.

    Args:
        lake: As `lakes.locate` gives it.
        version: Whose answers; told apart by model id from others of its name and number.
        images: The version of `images` that is counted.

    Raises:
        UserError: A table cannot be read.
    """
    sql = f"""SELECT count(*) AS images, count(answered) AS answered, count(error) AS errors,
        coalesce(sum(CASE WHEN answered IS NULL THEN size_bytes END), 0) AS missing_bytes
        {ANSWERED.format(version=is_of(version))}"""
    row = tables.query(lake, sql, ["images", "predictions"], images).to_pylist()[0]
    covered = Covered(row["images"], row["answered"], row["errors"], images.version)
    return covered, row["missing_bytes"]


@dataclass(frozen=True, slots=True)
class Errors:
    """What a version has lost of what was readable before it."""

    readable: int
    """Images that the version before answered without an error; without one, that ingest read."""
    answered: int
    """Images among them that the version has answered, an error being an answer too."""
    errors: int
    """Images among those that got an error of the version's."""
    lost: int
    """Images among those whose files are gone or changed since."""

    @property
    def rate(self) -> float:
        """Share of the answered ones that still have bytes that got an error, 0..1."""
        return self.errors / max(1, self.answered - self.lost)

    @property
    def lost_rate(self) -> float:
        """Share of the answered ones that readers would have no answer to, 0..1."""
        return (self.errors + self.lost) / max(1, self.answered)


def errors(lake: str, version: Version, before: Version | None, images: Snapshot) -> Errors:
    """Errors of a version on the images that could be read before it.

    Args:
        lake: As `lakes.locate` gives it.
        version: Whose errors.
        before: The version that readers see; None = none.
        images: The version of `images` that is counted.
    """
    fine = "unread IS NULL"
    if before is not None:
        fine = (
            "every.image_id IN (SELECT image_id FROM predictions"
            f" WHERE {is_of(before)} AND error IS NULL)"
        )
    sql = f"""SELECT count(*) AS readable, count(answered) AS answered,
        count(CASE WHEN error NOT IN {NO_BYTES} THEN 1 END) AS errors,
        count(CASE WHEN error IN {NO_BYTES} THEN 1 END) AS lost
        {ANSWERED.format(version=is_of(version))} WHERE {fine}"""
    row = tables.query(lake, sql, ["images", "predictions"], images).to_pylist()[0]
    return Errors(**row)


def is_of(version: Version) -> str:
    """A condition on rows of `predictions`: those that this very version made."""
    name, model_id = quoted(version.name), quoted(version.model_id)
    return f"model_name = {name} AND model_version = {version.version} AND model_id = {model_id}"
