"""Which version readers see: the `rollouts` ledger, and making readers follow a moved pointer."""

from collections.abc import Callable
from dataclasses import dataclass

from mlflow import MlflowClient
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from mlproject import lakes, scoring, tables
from mlproject.errors import UserError
from mlproject.registry import Version, resolve

SERVING = "serving"


@dataclass(frozen=True, slots=True)
class Serving:
    """What the last `serving` row of a pointer says."""

    version: Version
    """The version that readers of the pointer see."""
    coverage: float
    """Share of the images that it had answered when readers switched, 0..1."""
    images_version: int
    """The Delta version of `images` that the coverage was counted on."""
    at: int
    """When the row was written, microseconds since 1970."""


@dataclass(frozen=True, slots=True)
class Followed:
    """What following one pointer came to."""

    version: Version
    """The version behind the pointer now."""
    before: Version | None
    """The version that readers saw before; None = none."""
    scored: scoring.Scored
    """What had to be scored, over all looks."""
    coverage: float
    """Share of the images that the version has answered, 0..1."""
    switched: bool
    """Whether a `serving` row was written."""


def pointers(rollouts: DataFrame) -> list[str]:
    """All pointers that the ledger knows, by name."""
    return sorted(row.pointer for row in rollouts.select("pointer").distinct().collect())


def serving(rollouts: DataFrame, pointer: str) -> Serving | None:
    """What readers of a pointer see, None when they see nothing yet."""
    last = (
        rollouts.where((F.col("pointer") == pointer) & (F.col("state") == SERVING))
        .withColumn("at", F.unix_micros("at"))
        .orderBy(F.desc("at"))
        .first()
    )
    if last is None:
        return None
    version = Version(last.model_name, last.model_version, last.model_id, pointer)
    return Serving(version, last.coverage, last.images_version, last.at)


def current(spark: SparkSession, lake: str, pointer: str) -> DataFrame:
    """The predictions that readers of a pointer see: those of the version that serves it.

    Args:
        spark: A session with Delta.
        lake: The folder or URI of the tables.
        pointer: `models:/NAME@ALIAS` or `models:/NAME/STAGE`.

    Raises:
        UserError: No version serves the pointer yet.
    """
    lake = lakes.locate(lake)
    ledger = tables.read(spark, lake, "rollouts")
    now = serving(ledger, pointer)
    if now is None:
        known = ", ".join(map(repr, pointers(ledger))) or "none"
        raise UserError(
            f"No version serves {pointer!r} yet (pointers: {known}). "
            f"Run: mlflow run . -e rescore -P pointers={pointer}"
        )
    return scoring.said(tables.read(spark, lake, "predictions"), now.version)


def coverage(spark: SparkSession, lake: str, version: Version, images_version: int) -> float:
    """Share of the distinct images that a version has answered, 0..1; 1 when there are none.

    Args:
        spark: A session with Delta.
        lake: As `lakes.locate` gives it.
        version: Whose answers.
        images_version: The Delta version of `images` that is counted.
    """
    images = tables.read(spark, lake, "images", images_version).select("image_id").distinct()
    said = scoring.said(tables.read(spark, lake, "predictions"), version)
    answered = said.select("image_id", F.col("image_id").alias("answered")).distinct()
    joined = images.join(answered, "image_id", "left")
    counts = joined.agg(F.count("image_id").alias("all"), F.count("answered").alias("answered"))
    found = counts.collect()[0]
    return float(found["answered"] / found["all"]) if found["all"] else 1.0


def follow(
    spark: SparkSession,
    client: MlflowClient,
    lake: str,
    pointer: str,
    *,
    score: Callable[[Version], scoring.Scored],
) -> Followed:
    """Scores what the version behind a pointer has not said, then lets readers see it.

    The pointer is read again before readers switch: when it moved meanwhile, the rows stay, they
    are true, and the look begins anew with the version behind it now.

    Args:
        spark: A session with Delta.
        client: The registry.
        lake: As `lakes.locate` gives it.
        pointer: An alias or stage URI.
        score: Scores what is pending for a version.

    Raises:
        UserError: The pointer names no version, or is a version by number; or images cannot be
            read.
    """
    version = resolve(client, pointer)
    if version.pointer is None:
        raise UserError(
            f"{pointer!r} is one version, which never moves. Name a pointer "
            f"(models:/{version.name}@ALIAS or models:/{version.name}/STAGE), or run: "
            f"mlflow run . -e score -P model={pointer}"
        )
    pointer = version.pointer
    filler = f"rollout:{pointer}"
    before = serving(tables.snapshot(spark, lake, "rollouts", filler).read(spark), pointer)
    scored = None
    while True:
        scored = scoring.total([*([scored] if scored else []), score(version)])
        covered = coverage(spark, lake, version, scored.images_version)
        # The snapshot first, then the pointer: who moves readers after it makes our append lose.
        since = tables.snapshot(spark, lake, "rollouts", filler)
        now = serving(since.read(spark), pointer)
        moved = resolve(client, pointer)
        if moved != version:
            version = moved
            continue
        if covered < 1:
            if scored.unreadable:
                raise UserError(
                    f"{pointer}: {scored.unreadable} images cannot be read from their files now, "
                    "so readers stay where they are. Make the files readable and run again"
                )
            continue
        if now and now.version == version and now.images_version >= scored.images_version:
            switched = False
            break
        if tables.append(_row(spark, version, covered, scored.images_version, now), since):
            switched = True
            break
    return Followed(version, before.version if before else None, scored, covered, switched)


def _row(
    spark: SparkSession, version: Version, covered: float, images_version: int, now: Serving | None
) -> DataFrame:
    """A `serving` row, later than the one before it even when the clock went back."""
    row = (version.pointer, version.name, version.version, version.model_id)
    columns = "pointer string, model_name string, model_version int, model_id string"
    least = F.timestamp_micros(F.lit(now.at + 1 if now else 0))
    return (
        spark.createDataFrame([row], columns)
        .withColumn("state", F.lit(SERVING))
        .withColumn("coverage", F.lit(float(covered)))
        .withColumn("images_version", F.lit(images_version).cast("long"))
        .withColumn("at", F.greatest(F.current_timestamp(), least))
    )
