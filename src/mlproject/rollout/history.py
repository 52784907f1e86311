"""What readers saw and when, from the tables alone: periods, attempts, answers; no Spark.

Times are those of the ledger, which goes forward even when the clock of its writers goes back.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby

from mlproject.errors import UserError
from mlproject.lake import tables
from mlproject.lake.schemas import IMAGE_ID
from mlproject.lake.tables import instant, quoted
from mlproject.rollout.ledger import FAILED, SCORING, SERVING, Entry, Page
from mlproject.scoring.coverage import made_by
from mlproject.versions.version import Version

ID_CHARACTERS = 10  # of a model id, where it tells two models of one name apart


@dataclass(frozen=True, slots=True)
class Period:
    """A time in which a version was served to readers of its pointer, or was tried for them."""

    began: Entry
    """The first row of it; why readers switched."""
    last: Entry
    """The last row of it: its counts, its state, and why an attempt ended."""
    until: datetime | None
    """When it was over; None = it goes on."""

    @property
    def version(self) -> Version:
        """The version, with its pointer."""
        return self.began.version


@dataclass(frozen=True, slots=True)
class Answer:
    """One row of `predictions`: what one version said of one image."""

    version: Version
    """Who said it; without a pointer."""
    label: str | None
    """The first label; None where there is an error."""
    score: float | None
    """Its score, 0..1."""
    top: tuple[tuple[str, float], ...]
    """The best labels with their scores, the best first."""
    error: str | None
    """Why there is no answer; None = fine."""
    run_id: str
    """The MLflow run that made the row."""
    scored_at: datetime
    """When the wave of the row began to be scored, UTC."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What readers of one pointer saw at a time."""

    pointer: str
    """The pointer as a URI."""
    period: Period | None
    """The time in which its version served; None = no version did."""
    labels: tuple[tuple[str, int], ...]
    """Label and the images that had it, most first."""
    errors: tuple[tuple[str, int], ...]
    """Error and the images that had it, most first."""


@dataclass(frozen=True, slots=True)
class Image:
    """One image as the tables knew it at a time."""

    image_id: str
    """Sha256 of its bytes."""
    path: str
    """The path that was asked for, or the first with these bytes."""
    state: str
    """`ingested` or `unchanged`; else what `files` notes of the path, such as `gone`."""
    since: datetime
    """Since when it was so."""


def known(page: Page, wanted: Sequence[str]) -> list[str]:
    """The pointers that are asked for, or all when none are.

    Raises:
        UserError: One of them, or all, stand nowhere in the ledger.
    """
    there = page.pointers()
    names = ", ".join(map(repr, there)) or "none"
    missing = [pointer for pointer in wanted if pointer not in there]
    if missing:
        raise UserError(
            f"Nobody has followed {missing[0]!r} in this lake (pointers: {names}). "
            f"Run: mlflow run . -e rescore -P pointers={missing[0]}"
        )
    return page.wanted(wanted)


def periods(page: Page, pointer: str) -> list[Period]:
    """Who served readers of a pointer, one after the other; the last one does so still."""
    rows = [entry for entry in page.of(pointer) if entry.state == SERVING]
    groups = [list(group) for _, group in groupby(rows, key=lambda entry: entry.version)]
    ends = [*(group[0].at for group in groups[1:]), None]
    return [Period(group[0], group[-1], end) for group, end in zip(groups, ends, strict=False)]


def attempts(page: Page, pointer: str) -> list[Period]:
    """Versions that were to serve a pointer and did not, by the time they were begun.

    Their last row says it: `failed`, `superseded` by another before all was scored, or `scoring`.
    """
    at_work: dict[Version, Entry] = {}
    last: dict[Version, Entry] = {}
    found = []
    for entry in page.of(pointer):
        last[entry.version] = entry
        if entry.state == SCORING:
            at_work.setdefault(entry.version, entry)
            continue
        began = at_work.pop(entry.version, None)
        if entry.state != SERVING and (began or entry.state == FAILED):
            found.append(Period(began or entry, entry, entry.at))
    found += [Period(began, last[version], None) for version, began in at_work.items()]
    return sorted(found, key=lambda period: period.began.at)


def period_at(page: Page, pointer: str, at: datetime | None) -> Period | None:
    """The period in which readers were at a time (None = now); None = nothing served them."""
    rows = reversed(periods(page, pointer))
    return next((period for period in rows if at is None or period.began.at <= at), None)


def answered_up_to(entry: Entry) -> int:
    """The version of `images` whose images all had their answers when a row was written.

    A row of `predictions` that read this version or an older one was committed before, whatever the
    clock said; -1 = none can be told so. A table of images that was removed and read anew counts
    from 0: until the next row, answers to images that came since are taken for older ones.
    """
    complete = entry.covered is not None and not entry.covered.missing
    return entry.covered.images_version if entry.covered and complete else -1


def rows_seen(entry: Entry, at: datetime | None) -> str:
    """A condition on `predictions`: what readers saw at a time, given the row that served them."""
    if at is None:
        return made_by(entry.version)
    there = f"scored_at <= {instant(at)} OR images_version <= {answered_up_to(entry)}"
    return f"{made_by(entry.version)} AND ({there})"


def seen(lake: str, page: Page, pointer: str, at: datetime | None) -> Seen:
    """What readers of a pointer saw at a time, counted; as `rollouts.current` gives it.

    Args:
        lake: As `lakes.locate` gives it.
        page: Its ledger.
        pointer: A pointer URI.
        at: The time; None = now.
    """
    entry = page.serving(pointer, at)
    if entry is None:
        return Seen(pointer, None, (), ())
    sql = f"""SELECT label, error, count(*) AS images FROM predictions
        WHERE {rows_seen(entry, at)} GROUP BY label, error ORDER BY images DESC, label, error"""
    rows = tables.query(lake, sql, ["predictions"]).to_pylist()
    return Seen(
        pointer,
        period_at(page, pointer, at),
        tuple((row["label"], row["images"]) for row in rows if row["error"] is None),
        tuple((row["error"], row["images"]) for row in rows if row["error"] is not None),
    )


def image(lake: str, words: str, at: datetime | None) -> Image:
    """The image of an image_id, or that which lay at a path at a time, as far as `ingest` saw it.

    Args:
        lake: As `lakes.locate` gives it.
        words: An image_id, or a path as the tables have it.
        at: The time; None = now.

    Raises:
        UserError: The tables do not know it, did not then, or it was erased.
    """
    is_id = IMAGE_ID.fullmatch(words) is not None
    noted = notes(lake, words)
    there = [row for row in noted if at is None or row.since <= at]
    if there:  # of a path the last content; the bytes of an image_id are the same at each
        return there[0] if is_id else there[-1]
    if noted:
        raise UserError(f"Image {words!r} was not in the tables yet: it came at {noted[0].since}")
    sql = f"SELECT at FROM erased WHERE image_id = {quoted(words.lower())}"
    gone = tables.query(lake, sql, ["erased"])["at"].to_pylist()
    if gone:
        raise UserError(f"Image {words!r} was erased at {min(gone)}, with all answers to it")
    hint = "" if is_id else " (paths are absolute there, and erased images leave none)"
    raise UserError(f"The tables know no image {words!r}{hint}")


def notes(lake: str, words: str) -> list[Image]:
    """What the tables know of an image_id or path: each time that `ingest` noted it, in order."""
    is_id = IMAGE_ID.fullmatch(words) is not None
    where = f"image_id = '{words.lower()}'" if is_id else f"path = {quoted(words)}"
    # What lies at a path may be back to older bytes, or gone; an image_id is there since its row.
    noted = "" if is_id else f"UNION ALL SELECT image_id, path, state, at FROM files WHERE {where}"
    sql = f"""SELECT * FROM (SELECT image_id, path, 'ingested' AS state, ingested_at AS at
        FROM images WHERE {where} {noted}) AS found ORDER BY at, path"""
    rows = tables.query(lake, sql, ["images", "files"]).to_pylist()
    return [Image(row["image_id"], row["path"], row["state"], row["at"]) for row in rows]


def answers(lake: str, image_id: str, condition: str = "true") -> list[Answer]:
    """The rows of `predictions` of an image, the oldest first.

    Args:
        lake: As `lakes.locate` gives it.
        image_id: Its sha256.
        condition: Which of them, in the words of DataFusion.
    """
    sql = f"""SELECT * FROM predictions WHERE image_id = {quoted(image_id)} AND {condition}
        ORDER BY scored_at"""
    return [
        Answer(
            Version(row["model_name"], row["model_version"], row["model_id"], None),
            row["label"],
            row["score"],
            tuple(zip(row["top_labels"] or (), row["top_scores"] or (), strict=True)),
            row["error"],
            row["run_id"],
            row["scored_at"],
        )
        for row in tables.query(lake, sql, ["predictions"]).to_pylist()
    ]


def answer(
    lake: str, page: Page, pointer: str, found: Image, at: datetime | None
) -> tuple[Period | None, Answer | None]:
    """Who served readers of a pointer at a time, and what that version had said of an image."""
    entry = page.serving(pointer, at)
    if entry is None:
        return None, None
    rows = answers(lake, found.image_id, f"({rows_seen(entry, at)})")
    return period_at(page, pointer, at), rows[-1] if rows else None


def name(page: Page, version: Version) -> str:
    """A version's number, with the beginning of its model id where another model had the same."""
    twins = {
        entry.version.model_id
        for entry in page.entries
        if (entry.version.name, entry.version.version) == (version.name, version.version)
    }
    if len(twins | {version.model_id}) == 1:
        return str(version.version)
    # Of ids that are no ids of MLflow but places, the end is what differs.
    model_id = version.model_id
    short = model_id[:ID_CHARACTERS] if model_id.startswith("m-") else model_id[-ID_CHARACTERS:]
    return f"{version.version} ({short})"
