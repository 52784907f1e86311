"""Spark queries of a report: counts and a few chosen rows, never image content.

`predictions` are here the rows of `predictions_with_images`. A `Version` has no pointer here, so
that two can be compared.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from pyspark.sql import DataFrame, Row
from pyspark.sql import functions as F

from mlproject.scoring import scorer
from mlproject.versions.registry import Version

KEY = ("model_name", "model_version", "model_id")
PICTURE = ("image_id", "path", "folder", "time", "label", "score")
PICTURES = 8  # images with the highest scores of a version, and with the lowest
DIFFERENT = 12  # images with different labels of two versions
TRANSITIONS = 8  # most frequent pairs of different labels of two versions


@dataclass(frozen=True, slots=True)
class VersionCounts:
    """Counts of the predictions of one version."""

    version: Version
    """The version."""
    images: int
    """Images with a prediction or an error."""
    known: int
    """Images among them that are in the snapshot of the table of images."""
    errors: int
    """Images among them with an error."""
    mean_score: float | None
    """Mean score, 0..1; None = no prediction has a score."""
    labelled: int
    """Images without an error whose folder has the name of a label of the version."""
    correct: int
    """Labelled images among them whose predicted label is the name of their folder."""
    first_at: int
    """When the first prediction was made, microseconds since 1970."""
    last_at: int
    """When the last prediction was made, microseconds since 1970."""
    labels: Mapping[str | None, int]
    """Predicted label -> images; None = predictions without a label."""
    vocabulary: frozenset[str]
    """Labels that the version predicted for any image, top labels included: the labels that it
    knows, as far as the table shows."""


@dataclass(frozen=True, slots=True)
class Picture:
    """One image and its predictions by one version or two."""

    image_id: str
    """Sha256 of the content."""
    path: str | None
    """The first of the files with that content."""
    folder: str | None
    """The label from that file's folder."""
    ingested_at: int | None
    """When that file was ingested, microseconds since 1970; None = the table lacks the image."""
    predictions: tuple[tuple[str | None, float], ...]
    """Label and score (0..1), one pair for each version."""


@dataclass(frozen=True, slots=True)
class Difference:
    """The images for which two versions predict different labels."""

    version: Version
    """The serving version, the one that was scored last, or a quantized one."""
    other: Version
    """The version that it was quantized from, or that of the same model that was scored last beside
    it."""
    both: int
    """Images with predictions of both without an error."""
    different: int
    """Images among them with different labels."""
    correct: int
    """Different ones for which `version` predicts the folder's label."""
    other_correct: int
    """Different ones for which `other` predicts the folder's label."""
    transitions: tuple[tuple[str | None, str | None, int], ...]
    """The most frequent (label of `other`, label of `version`, images) among the different ones."""
    pictures: tuple[Picture, ...]
    """Different ones with the predictions of `version` and `other`, highest scores first."""


@dataclass(frozen=True, slots=True)
class ErrorCount:
    """How often one error code occurs."""

    code: str
    """The code, as in the column `error`."""
    unreadable: int
    """Different images that have it in the table of images."""
    versions: Mapping[Version, int]
    """Version -> predictions with this code."""
    examples: tuple[str, ...]
    """One path or two."""


def predictions_with_images(images: DataFrame, predictions: DataFrame) -> DataFrame:
    """All predictions with `path`, `folder` (label) and `time` (`ingested_at`) of their image.

    Of several files with the same bytes the first one is used, as in scoring.
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


def count_images(images: DataFrame) -> Row:
    """Rows of the table of images (one for each path and content), and different contents.

    These are `distinct` (all), those with `errors`, and those `labelled` with their folder's name.
    """
    return images.agg(
        F.count("*").alias("rows"),
        F.countDistinct("image_id").alias("distinct"),
        F.countDistinct(F.when(F.col("error").isNotNull(), F.col("image_id"))).alias("errors"),
        F.countDistinct(F.when(F.col("label").isNotNull(), F.col("image_id"))).alias("labelled"),
    ).collect()[0]


def count_folders(images: DataFrame, labels: list[str]) -> dict[str, int]:
    """Label -> different images in folders of that name."""
    rows = images.where(F.col("label").isin(labels)).groupBy("label")
    counted = rows.agg(F.countDistinct("image_id").alias("images"))
    return {row.label: row.images for row in counted.collect()}


def count_predictions(predictions: DataFrame) -> tuple[VersionCounts, ...]:
    """The counts of each version, by name, number and time."""
    number = F.when(~F.isnan("score"), F.col("score"))
    versions = predictions.groupBy(*KEY).agg(
        F.count("*").alias("images"),
        F.count("time").alias("known"),
        F.count("error").alias("errors"),
        F.avg(number).alias("mean_score"),
        F.unix_micros(F.min("scored_at")).alias("first_at"),
        F.unix_micros(F.max("scored_at")).alias("last_at"),
    )
    # The label at 0, then the top labels: counts and vocabulary in one pass.
    labels = F.concat(F.array("label"), F.coalesce("top_labels", F.array().cast("array<string>")))
    given = (
        predictions.where("error IS NULL")
        .select(*KEY, F.posexplode(labels).alias("rank", "folder"))
        .groupBy(*KEY, "folder")
        .agg(F.count_if(F.col("rank") == 0).alias("images"))
        .persist()
    )
    try:
        label_rows = given.collect()
        # A folder whose name the version does not know ("2024-05") is no incorrect prediction.
        labelled = predictions.where("error IS NULL").join(
            F.broadcast(given), [*KEY, "folder"], "left_semi"
        )
        correct = F.count_if(F.col("label") == F.col("folder")).alias("correct")
        accuracy = labelled.groupBy(*KEY).agg(F.count("*").alias("labelled"), correct)
        rows = versions.join(accuracy, [*KEY], "left").fillna(0, ["labelled", "correct"]).collect()
    finally:
        given.unpersist()
    counted = []
    for row in rows:
        own = [found for found in label_rows if _version(found) == _version(row)]
        counts = {found.folder: found.images for found in own if found.images}
        known = frozenset(found.folder for found in own if found.folder is not None)
        rest = {name: value for name, value in row.asDict().items() if name not in KEY}
        counted.append(VersionCounts(_version(row), labels=counts, vocabulary=known, **rest))
    return tuple(
        sorted(counted, key=lambda one: (one.version.name, one.version.version, one.last_at))
    )


def most_and_least_certain(
    predictions: DataFrame, version: Version
) -> tuple[tuple[Picture, ...], tuple[Picture, ...]]:
    """The images with the highest and the lowest scores of a version; no image is in both."""
    own = scorer.version_predictions(predictions, version)
    own = own.where("error IS NULL AND score IS NOT NULL AND NOT isnan(score)").select(*PICTURE)
    highest = own.orderBy(F.desc("score"), "image_id").limit(PICTURES)
    lowest = own.orderBy("score", "image_id").limit(PICTURES)
    chosen = {row.image_id: row for row in highest.union(lowest).collect()}
    rows = sorted(chosen.values(), key=lambda row: (-row.score, row.image_id))
    half = (len(rows) + 1) // 2
    least = sorted(rows[half:], key=lambda row: (row.score, row.image_id))
    return tuple(map(_picture, rows[:half])), tuple(map(_picture, least))


def difference(predictions: DataFrame, version: Version, other: Version) -> Difference:
    """How often, in which labels and for which images the predictions of two versions differ."""
    own, others = (
        scorer.version_predictions(predictions, one).where("error IS NULL")
        for one in (version, other)
    )
    others = others.select("image_id", F.struct("label", "score").alias("other"))
    both = own.select(*PICTURE).join(others, "image_id")
    differs = ~F.col("label").eqNullSafe(F.col("other.label"))
    row = both.agg(
        F.count("*").alias("both"),
        F.count_if(differs).alias("different"),
        F.count_if(differs & (F.col("label") == F.col("folder"))).alias("correct"),
        F.count_if(differs & (F.col("other.label") == F.col("folder"))).alias("other_correct"),
    ).collect()[0]
    counted = row.asDict()
    transitions: list[Row] = []
    rows: list[Row] = []
    if counted["different"]:
        different = both.where(differs)
        pairs = different.groupBy(F.col("other.label").alias("other"), "label")
        counts = pairs.agg(F.count("*").alias("images")).orderBy(F.desc("images"), "other", "label")
        transitions = counts.limit(TRANSITIONS).collect()
        lower_score = F.coalesce(F.least("score", "other.score"), F.lit(0.0))
        rows = different.orderBy(F.desc(lower_score), "image_id").limit(DIFFERENT).collect()
    return Difference(
        version,
        other,
        transitions=tuple((row.other, row.label, row.images) for row in transitions),
        pictures=tuple(map(_picture, rows)),
        **counted,
    )


def count_errors(images: DataFrame, predictions: DataFrame) -> tuple[ErrorCount, ...]:
    """Every code that occurs in the table of images or in predictions, by code."""
    ends = (F.min("path").alias("first_path"), F.max("path").alias("last_path"))
    no_version = [F.lit(None).alias(name) for name in KEY]
    unreadable = images.where("error IS NOT NULL").select("error", "image_id", "path", *no_version)
    failed = predictions.where("error IS NOT NULL").groupBy("error", *KEY)
    rows = (
        unreadable.groupBy("error", *KEY)
        .agg(F.countDistinct("image_id").alias("images"), *ends)
        .union(failed.agg(F.count("*").alias("images"), *ends))
        .collect()
    )
    found = []
    for code in sorted({row.error for row in rows}):
        own = [row for row in rows if row.error == code]
        paths = {path for row in own for path in (row.first_path, row.last_path) if path}
        examples = tuple(sorted({min(paths), max(paths)})) if paths else ()
        versions = {_version(row): row.images for row in own if row.model_name is not None}
        ingested = sum(row.images for row in own if row.model_name is None)
        found.append(ErrorCount(code, ingested, versions, examples))
    return tuple(found)


def _version(row: Row) -> Version:
    return Version(row.model_name, row.model_version, row.model_id, None)


def _picture(row: Row) -> Picture:
    predictions = [(row.label, row.score)]
    if "other" in row:
        predictions.append((row.other.label, row.other.score))
    return Picture(row.image_id, row.path, row.folder, row.time, tuple(predictions))
