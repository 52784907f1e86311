"""What readers of a pointer see, and what they saw at a time: the predictions of one version."""

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from mlproject import lakes, ledger, scoring, tables
from mlproject.errors import UserError


def current(spark: SparkSession, lake: str, pointer: str, at: str | None = None) -> DataFrame:
    """The predictions that readers of a pointer see: those of the version that serves it.

    Args:
        spark: A session with Delta.
        lake: The folder or URI of the tables.
        pointer: `models:/NAME@ALIAS` or `models:/NAME/STAGE`.
        at: A time of the past, such as `2026-01-31` (its end) or `2026-01-31T12:00:00+01:00`
            (without a zone: UTC): what readers saw then, but for images that were erased since.
            None = now.

    Raises:
        UserError: No version serves the pointer yet, or none did then.
    """
    lake = lakes.locate(lake)
    page = ledger.read(lake)
    when = None if at is None else ledger.moment(at)
    now = page.serving(pointer, when)
    if now is None:
        known = ", ".join(map(repr, page.pointers())) or "none"
        raise UserError(
            f"No version serves {pointer!r} {'yet' if at is None else at} (pointers: {known}). "
            f"Run: mlflow run . -e rescore -P pointers={pointer}"
        )
    rows = scoring.said(tables.read(spark, lake, "predictions"), now.version)
    return rows if when is None else rows.where(F.col("scored_at") <= F.lit(when))
