"""What served when, why, and with which predictions, from the tables alone; no Spark, no MLflow.

Times are those in table `rollouts`, which increase even when the clock of a writer goes back.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from mlproject.errors import UserError
from mlproject.lake import location
from mlproject.lake.queries import instant, query, quoted
from mlproject.lake.schemas import IMAGE_ID
from mlproject.rollout import ledger
from mlproject.rollout.ledger import Entry, LedgerSnapshot, Period
from mlproject.scoring.coverage import made_by
from mlproject.versions.version import Version

ID_CHARACTERS = 10  # of a model id, where it distinguishes two models of one name


@dataclass(frozen=True, slots=True)
class Prediction:
    """One row of `predictions`: what one version predicted for one image."""

    version: Version
    """The version; without an alias."""
    label: str | None
    """The first label; None where there is an error."""
    score: float | None
    """Its score, 0..1."""
    top: tuple[tuple[str, float], ...]
    """The best labels with their scores, the best first."""
    error: str | None
    """Error code; None = there is a label."""
    run_id: str
    """The MLflow run that made the row."""
    scored_at: datetime
    """When scoring of its micro-batch began, UTC."""


@dataclass(frozen=True, slots=True)
class Image:
    """One image as the tables knew it at a time."""

    image_id: str
    """Sha256 of its bytes."""
    path: str
    """The given path, or the first with these bytes."""
    state: str
    """`ingested` or `unchanged`; else the state of the path in `files`, such as `gone`."""
    since: datetime
    """Since when it had this state."""


@dataclass(frozen=True, slots=True)
class AliasHistory:
    """The versions of one alias or stage over time."""

    alias: str
    """URI of the alias or stage."""
    served: tuple[Period, ...]
    """Its serving versions, one after the other."""
    attempts: tuple[Period, ...]
    """Versions that were rolled out and did not become the serving version."""


@dataclass(frozen=True, slots=True)
class CurrentPredictions:
    """The predictions of the serving version of one alias at a time, counted."""

    alias: str
    """URI of the alias or stage."""
    period: Period | None
    """The time in which the version served; None = no version did."""
    labels: tuple[tuple[str, int], ...]
    """Label and its images, most first."""
    errors: tuple[tuple[str, int], ...]
    """Error code and its images, most first."""


@dataclass(frozen=True, slots=True)
class CurrentPrediction:
    """The prediction of the serving version of one alias for one image at a time."""

    alias: str
    """URI of the alias or stage."""
    period: Period | None
    """The time in which the version served; None = no version did."""
    prediction: Prediction | None
    """Its prediction; None = it had none."""


@dataclass(frozen=True, slots=True)
class HistoryResult:
    """The history of aliases, or their predictions at a time, from the tables."""

    rows: LedgerSnapshot
    """Table `rollouts`."""
    at: datetime | None
    """The given time, UTC; None = now."""
    image: Image | None
    """The given image; None = all images."""
    histories: tuple[AliasHistory, ...] = ()
    """One for each alias, when neither a time nor an image is given."""
    counts: tuple[CurrentPredictions, ...] = ()
    """One for each alias, when a time is given."""
    predictions: tuple[CurrentPrediction, ...] = ()
    """One for each alias, when an image is given."""


def history(
    pointers: Sequence[str] = (), lake: str = "lake", *, at: str = "", image: str = ""
) -> HistoryResult:
    """Which version served each alias or stage when, and why; or its predictions at a time.

    Args:
        pointers: URIs of aliases or stages; empty = all in table rollouts.
        lake: Folder or URI of the tables.
        at: The time whose predictions are counted: a date (its end) or a time, UTC or with +HH:MM.
        image: Path as in the tables, or image_id, whose predictions are returned.

    Raises:
        UserError: The tables have no such alias or image, or `at` is not a time.
    """
    lake = location.locate(lake)
    rows = ledger.read(lake)
    aliases = known_aliases(rows, pointers)
    moment = ledger.moment(at) if at else None
    if image:
        found = find_image(lake, image, moment)
        predictions = [current_prediction(lake, rows, one, found, moment) for one in aliases]
        return HistoryResult(rows, moment, found, predictions=tuple(predictions))
    if moment is not None:
        counts = [count_predictions(lake, rows, one, moment) for one in aliases]
        return HistoryResult(rows, moment, None, counts=tuple(counts))
    histories = [
        AliasHistory(one, tuple(rows.periods(one)), tuple(rows.attempts(one))) for one in aliases
    ]
    return HistoryResult(rows, None, None, histories=tuple(histories))


def known_aliases(rows: LedgerSnapshot, wanted: Sequence[str]) -> list[str]:
    """The given aliases, or all when none are given; UserError unless `rollouts` has them."""
    known = rows.known()
    missing = [alias for alias in wanted if alias not in known]
    if missing:
        names = ", ".join(map(repr, known)) or "none"
        raise UserError(
            f"{missing[0]!r} was never rolled out in this lake (aliases and stages: {names}). "
            f"Run: mlflow run . -e rescore -P pointers={missing[0]}"
        )
    return rows.aliases(wanted)


def current_rows(entry: Entry, at: datetime | None) -> str:
    """A condition on `predictions`: rows of the serving version at a time, given its last row."""
    if at is None:
        return made_by(entry.version)
    there = f"scored_at <= {instant(at)} OR images_version <= {entry.complete_up_to}"
    return f"{made_by(entry.version)} AND ({there})"


def count_predictions(
    lake: str, rows: LedgerSnapshot, alias: str, at: datetime | None
) -> CurrentPredictions:
    """The predictions that `serving.current` gives for an alias at a time (None = now), counted."""
    entry = rows.serving(alias, at)
    if entry is None:
        return CurrentPredictions(alias, None, (), ())
    sql = f"""SELECT label, error, count(*) AS images FROM predictions
        WHERE {current_rows(entry, at)} GROUP BY label, error ORDER BY images DESC, label, error"""
    found = query(lake, sql, ["predictions"]).to_pylist()
    return CurrentPredictions(
        alias,
        rows.period_at(alias, at),
        tuple((row["label"], row["images"]) for row in found if row["error"] is None),
        tuple((row["error"], row["images"]) for row in found if row["error"] is not None),
    )


def current_prediction(
    lake: str, rows: LedgerSnapshot, alias: str, image: Image, at: datetime | None
) -> CurrentPrediction:
    """The prediction of the serving version of an alias for an image at a time (None = now)."""
    entry = rows.serving(alias, at)
    if entry is None:
        return CurrentPrediction(alias, None, None)
    found = image_predictions(lake, image.image_id, f"({current_rows(entry, at)})")
    return CurrentPrediction(alias, rows.period_at(alias, at), found[-1] if found else None)


def find_image(lake: str, image: str, at: datetime | None) -> Image:
    """The image of an image_id, or that which lay at a path at a time (None = now), as ingested.

    Raises:
        UserError: The tables do not have it, did not then, or it was erased.
    """
    is_id = IMAGE_ID.fullmatch(image) is not None
    noted = image_states(lake, image)
    there = [row for row in noted if at is None or row.since <= at]
    if there:  # of a path the last content; the bytes of an image_id are the same at each
        return there[0] if is_id else there[-1]
    if noted:
        raise UserError(f"Image {image!r} was not in the tables before {noted[0].since}")
    sql = f"SELECT at FROM erased WHERE image_id = {quoted(image.lower())}"
    gone = query(lake, sql, ["erased"])["at"].to_pylist()
    if gone:
        raise UserError(f"Image {image!r} was erased at {min(gone)}, with all its predictions")
    hint = "" if is_id else " (use an absolute path; those of erased images are not kept)"
    raise UserError(f"The tables have no image {image!r}{hint}")


def image_states(lake: str, image: str) -> list[Image]:
    """The states of an image_id or path in the tables, the oldest first."""
    is_id = IMAGE_ID.fullmatch(image) is not None
    where = f"image_id = '{image.lower()}'" if is_id else f"path = {quoted(image)}"
    # What lies at a path may be back to older bytes, or gone; an image_id is there since its row.
    noted = "" if is_id else f"UNION ALL SELECT image_id, path, state, at FROM files WHERE {where}"
    sql = f"""SELECT * FROM (SELECT image_id, path, 'ingested' AS state, ingested_at AS at
        FROM images WHERE {where} {noted}) AS found ORDER BY at, path"""
    rows = query(lake, sql, ["images", "files"]).to_pylist()
    return [Image(row["image_id"], row["path"], row["state"], row["at"]) for row in rows]


def image_predictions(lake: str, image_id: str, condition: str = "true") -> list[Prediction]:
    """The rows of `predictions` of an image that meet a condition in SQL, the oldest first."""
    sql = f"""SELECT * FROM predictions WHERE image_id = {quoted(image_id)} AND {condition}
        ORDER BY scored_at"""
    return [
        Prediction(
            Version(row["model_name"], row["model_version"], row["model_id"], None),
            row["label"],
            row["score"],
            tuple(zip(row["top_labels"] or (), row["top_scores"] or (), strict=True)),
            row["error"],
            row["run_id"],
            row["scored_at"],
        )
        for row in query(lake, sql, ["predictions"]).to_pylist()
    ]


def version_name(rows: LedgerSnapshot, version: Version) -> str:
    """A version's number, with the beginning of its model id if another model had the same."""
    model_id = version.model_id
    twins = {one.version.model_id for one in rows.entries if one.version.uri == version.uri}
    if twins <= {model_id}:
        return str(version.version)
    # Ids that MLflow did not make are paths, which differ at their end.
    short = model_id[:ID_CHARACTERS] if model_id.startswith("m-") else model_id[-ID_CHARACTERS:]
    return f"{version.version} ({short})"
