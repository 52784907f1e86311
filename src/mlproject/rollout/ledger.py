"""The ledger `rollouts`: which version readers of a pointer see, saw, and were kept from; no Spark.

A row tells the state of one version at one pointer from then on:

- `scoring`: the pointer names it, and readers do not see it yet;
- `serving`: readers see it;
- `superseded`: they do so no more, or never did, as the pointer had moved on;
- `failed`: a check said no, for the reason in the row; readers stay where they are.

At each pointer one version at most is `serving`, and the last `serving` row is what readers see.
"""

from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, replace
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

import pyarrow as pa

from mlproject.errors import UserError
from mlproject.lake import tables
from mlproject.lake.schemas import SCHEMAS
from mlproject.lake.snapshots import Snapshot
from mlproject.scoring.coverage import Coverage
from mlproject.versions.version import Version

SCORING, SERVING, SUPERSEDED, FAILED = "scoring", "serving", "superseded", "failed"
STATES = (SCORING, SERVING, SUPERSEDED, FAILED)


@dataclass(frozen=True, slots=True)
class Entry:
    """One row of the ledger."""

    version: Version
    """The version, with the pointer that the row is about."""
    state: str
    """One of `STATES`."""
    coverage: float
    """Share of the images that it had answered, 0..1."""
    covered: Coverage | None
    """The counts behind the coverage; None in rows of the first release, which lack them."""
    reason: str
    """Why, in words."""
    run_id: str
    """The MLflow run that wrote the row; empty in rows of the first release."""
    at: datetime
    """When it was written, UTC: later than the row before it even when the clock went back."""


@dataclass(frozen=True, slots=True)
class Page:
    """What the ledger tells at one of its versions, and from where its next row is written."""

    since: Snapshot | None
    """The version that was read; None = there is no ledger."""
    entries: tuple[Entry, ...]
    """The rows of all pointers in their order."""

    def pointers(self) -> list[str]:
        """All pointers that stand in it, by name."""
        return sorted({entry.version.pointer or "" for entry in self.entries})

    def wanted(self, named: Sequence[str]) -> list[str]:
        """The pointers that are named, or all that stand in it when none is.

        Raises:
            UserError: None is named, and none stands in it.
        """
        found = list(named) or self.pointers()
        if not found:
            raise UserError(
                "No pointer is followed in this lake yet. Name one: "
                "mlflow run . -e rescore -P pointers=models:/photos@champion"
            )
        return found

    def of(self, pointer: str) -> list[Entry]:
        """The rows of one pointer in their order."""
        return [entry for entry in self.entries if entry.version.pointer == pointer]

    def serving(self, pointer: str, at: datetime | None = None) -> Entry | None:
        """The row that says what readers of a pointer see, or saw at a time; None = nothing."""
        rows = (entry for entry in reversed(self.of(pointer)) if entry.state == SERVING)
        return next((entry for entry in rows if at is None or entry.at <= at), None)

    def last(self, version: Version) -> Entry | None:
        """The last row of a version at its pointer, which is its state; None = it has none."""
        rows = reversed(self.of(version.pointer or ""))
        return next((entry for entry in rows if entry.version == version), None)

    def has_served(self, version: Version) -> bool:
        """Whether readers of its pointer see a version, or have seen it."""
        rows = self.of(version.pointer or "")
        return any(entry.version == version and entry.state == SERVING for entry in rows)


def read(lake: str) -> Page:
    """The newest version of a lake's ledger; without rows when there is none yet.

    Raises:
        UserError: It cannot be read, or is no ledger.
    """
    return _page(lake, tables.newest(lake, "rollouts"))


def read_to_write(lake: str, pointer: str) -> Page:
    """As `read`, to write rows about one pointer; the ledger is made when it is not there yet.

    Raises:
        UserError: As `read`, or it cannot be made.
    """
    return _page(lake, tables.snapshot(lake, "rollouts", f"rollout:{pointer}"))


def write(page: Page, entries: Sequence[Entry]) -> Page | None:
    """Appends rows about one pointer in one commit, unless another has since written about it.

    Args:
        page: What the rows were computed from, read by `read_to_write`.
        entries: Rows whose `at` is moved behind that of the pointer's last row.

    Returns:
        The ledger with these rows, or None when another came first: look again.

    Raises:
        UserError: It cannot be written, as on a full disk.
    """
    if page.since is None:
        raise ValueError("a page that was not read to be written")
    before = page.of(entries[0].version.pointer or "")
    at = max([datetime.now(UTC), *(entry.at + _TICK for entry in before[-1:])])
    timed = [replace(entry, at=at + place * _TICK) for place, entry in enumerate(entries)]
    rows = pa.Table.from_pylist([_row(entry) for entry in timed], schema=SCHEMAS["rollouts"])
    since = tables.append(rows, page.since)
    return None if since is None else Page(since, (*page.entries, *timed))


def moment(words: str) -> datetime:
    """A time in words: a date stands for its end; without a zone it is UTC.

    Raises:
        UserError: It is no time of ISO 8601.
    """
    try:
        return datetime.combine(date.fromisoformat(words), time.max, UTC)
    except ValueError:
        pass  # no date
    try:
        found = datetime.fromisoformat(words)
        return found.astimezone(UTC) if found.tzinfo else found.replace(tzinfo=UTC)
    except (ValueError, OverflowError) as error:
        raise UserError(
            f"{words!r} is no time. Write a date, as 2026-01-31, or 2026-01-31T12:00:00"
        ) from error


_TICK = timedelta(microseconds=1)
# Columns of the fields of `Coverage`, in their order.
_COUNTS = ("images", "answered", "errors", "images_version")
_FACTS = ("state", "coverage", "reason", "run_id", "at")


def _page(lake: str, since: Snapshot | None) -> Page:
    if since is None:
        return Page(None, ())
    found = tables.query(lake, "SELECT * FROM rollouts", ["rollouts"], since)
    rows = found.sort_by("at").to_pylist()
    return Page(since, tuple(_entry(row) for row in rows))


def _entry(row: Mapping[str, Any]) -> Entry:
    version = Version(row["model_name"], row["model_version"], row["model_id"], row["pointer"])
    counts: list[Any] = [row.get(name) for name in _COUNTS]
    covered = None if None in counts else Coverage(*counts)
    facts: dict[str, Any] = {name: row.get(name) for name in _FACTS}
    facts |= {name: facts[name] or "" for name in ("reason", "run_id")}  # null in old rows
    return Entry(version=version, covered=covered, **facts)


def _row(entry: Entry) -> dict[str, Any]:
    row = {
        "pointer": entry.version.pointer,
        "model_name": entry.version.name,
        "model_version": entry.version.version,
        "model_id": entry.version.model_id,
    }
    if entry.covered:
        row |= dict(zip(_COUNTS, astuple(entry.covered), strict=True))
    return row | {name: getattr(entry, name) for name in _FACTS}
