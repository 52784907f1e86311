"""The predictions of the serving version, as a Spark DataFrame."""

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from mlproject.errors import UserError
from mlproject.lake import location, snapshots
from mlproject.rollout import ledger
from mlproject.scoring.scorer import version_predictions


def current(spark: SparkSession, lake: str, pointer: str, at: str | None = None) -> DataFrame:
    """The predictions of the serving version of an alias or stage, now or at a time.

    At a time of the past they are those of that time, with these exceptions:

    - images that were erased since are left out;
    - errors that were replaced since are left out, or are the new predictions where no images came
      since: `rollouts` names their codes and times;
    - `scored_at` is when scoring of a micro-batch began, not its commit: predictions of new images
      in a micro-batch that was being scored at the time are included;
    - times are those of the machines that wrote. The times in table `rollouts` increase even when
      a clock goes back: rows written then are a moment after the one that was ahead. Predictions
      that were counted when the serving version changed are included whatever their own time is,
      provided that no image was missing then; newer rows are included by their time.

    Args:
        spark: A session with Delta.
        lake: Folder or URI of the tables.
        pointer: URI of the alias or stage: `models:/NAME@ALIAS` or `models:/NAME/STAGE`.
        at: A time of the past, such as `2026-01-31` (its end) or `2026-01-31T12:00:00+01:00`
            (without a zone: UTC). None = now.

    Raises:
        UserError: No version serves yet, or none did then; or `at` is not a time.
    """
    lake = location.locate(lake)
    rows = ledger.read(lake)
    when = None if at is None else ledger.moment(at)
    entry = rows.serving(pointer, when)
    if entry is None:
        known = ", ".join(map(repr, rows.known())) or "none"
        if when is not None and rows.serving(pointer):
            first = rows.periods(pointer)[0].began.at
            raise UserError(
                f"No version served {pointer!r} at {when:%Y-%m-%dT%H:%M:%S} (UTC), "
                f"before the first one at {first:%Y-%m-%dT%H:%M:%S}"
            )
        raise UserError(
            f"No version serves {pointer!r} yet (aliases and stages: {known}). "
            f"Run: mlflow run . -e rescore -P pointers={pointer}"
        )
    found = version_predictions(snapshots.rows(spark, lake, "predictions"), entry.version)
    if when is None:
        return found
    counted = F.col("images_version") <= entry.complete_up_to
    return found.where(counted | (F.col("scored_at") <= F.lit(when)))
