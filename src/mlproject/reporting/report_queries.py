"""The questions that a report asks the tables: aggregates and a few chosen rows, no content.

The rows of `said` are the predictions of all versions, each with what the table of images knows of
its image. A `Version` stands here without its pointer, so that it can be compared.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from pyspark.sql import Column, DataFrame, Row
from pyspark.sql import functions as F

from mlproject.scoring import scorer
from mlproject.versions.registry import Version

KEY = ("model_name", "model_version", "model_id")
PICTURE = ("image_id", "path", "folder", "time", "label", "score")
PICTURES = 8  # pictures of either end of certainty
DIFFERENT = 12  # pictures on which two versions differ
FLOWS = 8  # pairs of labels that two versions confuse most


@dataclass(frozen=True, slots=True)
class Images:
    """Counts of the table of images."""

    rows: int
    """Rows: one a path and content."""
    distinct: int
    """Different contents, by image_id."""
    errors: int
    """Different contents with an error."""
    labelled: int
    """Different contents with a label, which is the name of their folder."""


@dataclass(frozen=True, slots=True)
class Answers:
    """What one version answered, counted."""

    version: Version
    """The version that answered."""
    images: int
    """Images that it was shown."""
    known: int
    """Images among them that the table of images holds in the version that was read."""
    errors: int
    """Images that got an error instead of an answer."""
    mean_score: float | None
    """Mean score of the answers, 0..1; None without any."""
    labelled: int
    """Answered images whose folder has the name of a label of the version."""
    right: int
    """Images among the labelled ones that got their folder's label."""
    first_at: int
    """When the first answer was written, microseconds since 1970."""
    last_at: int
    """When the last answer was written, microseconds since 1970."""
    labels: Mapping[str | None, int]
    """Label -> images that got it; the label None is an answer without one."""
    vocabulary: frozenset[str]
    """Labels that the version gave at all, also among its next best: the set it can choose from,
    as far as the table tells."""


@dataclass(frozen=True, slots=True)
class Picture:
    """One image, and what one version or two said about it."""

    image_id: str
    """Sha256 of the content."""
    path: str | None
    """The first of the files with that content."""
    folder: str | None
    """The label from that file's folder."""
    ingested_at: int | None
    """When that file was taken in, microseconds since 1970; None = the image is not known."""
    said: tuple[tuple[str | None, float], ...]
    """Label and score (0..1), one pair a version."""


@dataclass(frozen=True, slots=True)
class Difference:
    """Where two versions of one model disagree."""

    ours: Version
    """The version that serves, or was scored last."""
    theirs: Version
    """The other version that was scored last."""
    both: int
    """Images that both answered."""
    different: int
    """Images among them that got different labels."""
    ours_right: int
    """Different ones on which `ours` gave the folder's label."""
    theirs_right: int
    """Different ones on which `theirs` gave the folder's label."""
    flows: tuple[tuple[str | None, str | None, int], ...]
    """The most frequent (label of `theirs`, label of `ours`, images) among the different ones."""
    pictures: tuple[Picture, ...]
    """Different ones with the answer of `ours` and of `theirs`, those most certain first."""


@dataclass(frozen=True, slots=True)
class ErrorCount:
    """One error code, wherever it stands."""

    code: str
    """The code, as in the column `error`."""
    unread: int
    """Different images of the table of images that have it."""
    versions: Mapping[Version, int]
    """Version -> images on which it gave this code."""
    examples: tuple[str, ...]
    """Paths of one image or two."""


def bare(version: Version) -> Version:
    """A version without the pointer that it was read from."""
    return Version(version.name, version.version, version.model_id, None)


def said(images: DataFrame, predictions: DataFrame) -> DataFrame:
    """All predictions with `path`, `folder` (label) and `time` (`ingested_at`) of their image.

    Of several files with the same bytes the first one stands for all, as in scoring.
    """
    first = F.min(F.struct("ingested_at", "path", "label")).alias("first")
    distinct = images.groupBy("image_id").agg(first)
    known = distinct.select(
        "image_id",
        "first.path",
        F.col("first.label").alias("folder"),
        F.unix_micros("first.ingested_at").alias("time"),
    )
    columns = (*KEY, "image_id", "label", "score", "top_labels", "error", "scored_at")
    return predictions.select(*columns).join(known, "image_id", "left")


def count_images(images: DataFrame) -> Images:
    """Counts of the table of images."""
    row = images.agg(
        F.count("*").alias("rows"),
        F.countDistinct("image_id").alias("distinct"),
        F.countDistinct(F.when(F.col("error").isNotNull(), F.col("image_id"))).alias("errors"),
        F.countDistinct(F.when(F.col("label").isNotNull(), F.col("image_id"))).alias("labelled"),
    ).first()
    return Images(**(row.asDict() if row else {}))


def count_folders(images: DataFrame, labels: list[str]) -> dict[str, int]:
    """Different images by their folder's label, for the labels given."""
    rows = images.where(F.col("label").isin(labels)).groupBy("label")
    counted = rows.agg(F.countDistinct("image_id").alias("images"))
    return {row.label: row.images for row in counted.collect()}


def count_answers(said: DataFrame) -> tuple[Answers, ...]:
    """What each version answered, by name, number and time."""
    number = F.when(~F.isnan("score"), F.col("score"))
    versions = said.groupBy(*KEY).agg(
        F.count("*").alias("images"),
        F.count("time").alias("known"),
        F.count("error").alias("errors"),
        F.avg(number).alias("mean_score"),
        F.unix_micros(F.min("scored_at")).alias("first_at"),
        F.unix_micros(F.max("scored_at")).alias("last_at"),
    )
    # The label itself at 0, then the best ones: counts and vocabulary in one pass.
    words = F.concat(F.array("label"), F.coalesce("top_labels", F.array().cast("array<string>")))
    given = (
        said.where(_answered())
        .select(*KEY, F.posexplode(words).alias("place", "folder"))
        .groupBy(*KEY, "folder")
        .agg(F.count_if(F.col("place") == 0).alias("images"))
        .persist()
    )
    try:
        labels = given.collect()
        # A folder whose name no version knows ("2024-05") is no wrong answer of the version.
        fair = said.where(_answered()).join(F.broadcast(given), [*KEY, "folder"], "left_semi")
        right = F.count_if(F.col("label") == F.col("folder"))
        judged = fair.groupBy(*KEY).agg(F.count("*").alias("labelled"), right.alias("right"))
        rows = versions.join(judged, [*KEY], "left").fillna(0, ["labelled", "right"]).collect()
    finally:
        given.unpersist()
    found = []
    for row in rows:
        mine = [word for word in labels if _version(word) == _version(row)]
        counts = {word.folder: word.images for word in mine if word.images}
        vocabulary = frozenset(word.folder for word in mine if word.folder is not None)
        facts = {name: value for name, value in row.asDict().items() if name not in KEY}
        found.append(Answers(version=_version(row), labels=counts, vocabulary=vocabulary, **facts))
    return tuple(sorted(found, key=lambda a: (a.version.name, a.version.version, a.last_at)))


def extremes(said: DataFrame, version: Version) -> tuple[tuple[Picture, ...], tuple[Picture, ...]]:
    """The pictures of a version's highest and of its lowest scores; no image is in both."""
    mine = scorer.version_predictions(said, version).where(_answered() & F.col("score").isNotNull())
    mine = mine.where(~F.isnan("score")).select(*PICTURE)
    highest = mine.orderBy(F.desc("score"), "image_id").limit(PICTURES)
    lowest = mine.orderBy("score", "image_id").limit(PICTURES)
    chosen = {row.image_id: row for row in highest.union(lowest).collect()}
    rows = sorted(chosen.values(), key=lambda row: (-row.score, row.image_id))
    half = (len(rows) + 1) // 2
    least = sorted(rows[half:], key=lambda row: (row.score, row.image_id))
    return tuple(map(_picture, rows[:half])), tuple(map(_picture, least))


def difference(said: DataFrame, ours: Version, theirs: Version) -> Difference:
    """Where two versions disagree: how often, in which labels, and on which images."""
    mine, other = (
        scorer.version_predictions(said, version).where(_answered()) for version in (ours, theirs)
    )
    other = other.select("image_id", F.struct("label", "score").alias("other"))
    both = mine.select(*PICTURE).join(other, "image_id")
    differs = ~F.col("label").eqNullSafe(F.col("other.label"))
    counts = both.agg(
        F.count("*").alias("both"),
        F.count_if(differs).alias("different"),
        F.count_if(differs & (F.col("label") == F.col("folder"))).alias("ours_right"),
        F.count_if(differs & (F.col("other.label") == F.col("folder"))).alias("theirs_right"),
    ).first()
    facts = counts.asDict() if counts else {}
    flows: list[Row] = []
    rows: list[Row] = []
    if facts["different"]:
        different = both.where(differs)
        pairs = different.groupBy(F.col("other.label").alias("before"), "label")
        counted = pairs.agg(F.count("*").alias("images"))
        flows = counted.orderBy(F.desc("images"), "before", "label").limit(FLOWS).collect()
        sure = F.coalesce(F.least("score", "other.score"), F.lit(0.0))
        rows = different.orderBy(F.desc(sure), "image_id").limit(DIFFERENT).collect()
    return Difference(
        ours,
        theirs,
        flows=tuple((row.before, row.label, row.images) for row in flows),
        pictures=tuple(map(_picture, rows)),
        **facts,
    )


def count_errors(images: DataFrame, said: DataFrame) -> tuple[ErrorCount, ...]:
    """Every code that occurs in the table of images or in predictions, by code."""
    ends = (F.min("path").alias("first_path"), F.max("path").alias("last_path"))
    nobody = [F.lit(None).alias(name) for name in KEY]
    unread = images.where("error IS NOT NULL").select("error", "image_id", "path", *nobody)
    wrong = said.where("error IS NOT NULL").groupBy("error", *KEY)
    rows = (
        unread.groupBy("error", *KEY)
        .agg(F.countDistinct("image_id").alias("images"), *ends)
        .union(wrong.agg(F.count("*").alias("images"), *ends))
        .collect()
    )
    found = []
    for code in sorted({row.error for row in rows}):
        mine = [row for row in rows if row.error == code]
        paths = {path for row in mine for path in (row.first_path, row.last_path) if path}
        examples = tuple(sorted({min(paths), max(paths)})) if paths else ()
        versions = {_version(row): row.images for row in mine if row.model_name is not None}
        alone = sum(row.images for row in mine if row.model_name is None)
        found.append(ErrorCount(code, alone, versions, examples))
    return tuple(found)


def _answered() -> Column:
    return F.col("error").isNull()


def _version(row: Row) -> Version:
    return Version(row.model_name, row.model_version, row.model_id, None)


def _picture(row: Row) -> Picture:
    said = [(row.label, row.score)]
    if "other" in row:
        said.append((row.other.label, row.other.score))
    return Picture(row.image_id, row.path, row.folder, row.time, tuple(said))
