"""What readers of a pointer see, and what they saw at a time: the predictions of one version."""

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from mlproject.errors import UserError
from mlproject.lake import location, spark_tables
from mlproject.rollout import history, ledger
from mlproject.scoring import scorer


def current(spark: SparkSession, lake: str, pointer: str, at: str | None = None) -> DataFrame:
    """The predictions that readers of a pointer see: those of the version that serves it.

    Of the past it is what readers saw then, with these exceptions:

    - images that were erased since are left out;
    - a row tells when its wave began to be scored, not when it was committed: of new images, a wave
      that was at work at the time counts as there;
    - times are those of the machines that wrote. The ledger's go forward even when a clock goes
      back: rows written then stand a moment after the one that was ahead. What the ledger had
      counted when readers switched is there whatever its own time says, provided that every image
      was answered then; rows that came later are there by their time.

    Args:
        spark: A session with Delta.
        lake: The folder or URI of the tables.
        pointer: `models:/NAME@ALIAS` or `models:/NAME/STAGE`.
        at: A time of the past, such as `2026-01-31` (its end) or `2026-01-31T12:00:00+01:00`
            (without a zone: UTC). None = now.

    Raises:
        UserError: No version serves the pointer yet, or none did then; or `at` is no time.
    """
    lake = location.locate(lake)
    page = ledger.read(lake)
    when = None if at is None else ledger.moment(at)
    now = page.serving(pointer, when)
    if now is None:
        known = ", ".join(map(repr, page.pointers())) or "none"
        if when is not None and page.serving(pointer):
            first = history.periods(page, pointer)[0].began.at
            raise UserError(
                f"No version served {pointer!r} at {when:%Y-%m-%dT%H:%M:%S}, the first one did at "
                f"{first:%Y-%m-%dT%H:%M:%S} (UTC)"
            )
        raise UserError(
            f"No version serves {pointer!r} yet (pointers: {known}). "
            f"Run: mlflow run . -e rescore -P pointers={pointer}"
        )
    rows = scorer.version_predictions(spark_tables.read(spark, lake, "predictions"), now.version)
    if when is None:
        return rows
    counted = F.col("images_version") <= history.answered_up_to(now)
    return rows.where(counted | (F.col("scored_at") <= F.lit(when)))
