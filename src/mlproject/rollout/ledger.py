"""Table `rollouts`: the state of each version at each alias or stage, and what follows; no Spark.

A row holds the state of one version at one alias or stage from then on:

- `scoring`: the alias names the version, which is not the serving version yet;
- `serving`: it is the serving version;
- `superseded`: it is no longer the serving version, or never was, as the alias was moved;
- `failed`: a check failed, for the reason in the row; the serving version stays.

Each alias has one serving version at most: that of the last row with state `serving`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, replace
from datetime import UTC, date, datetime, time, timedelta
from itertools import groupby
from typing import Any

import pyarrow as pa

from mlproject.errors import UserError
from mlproject.lake import commits, queries, snapshots
from mlproject.lake.schemas import SCHEMAS
from mlproject.lake.snapshots import Snapshot
from mlproject.masking import mask
from mlproject.scoring.coverage import Coverage
from mlproject.versions.version import Version

SCORING, SERVING, SUPERSEDED, FAILED = "scoring", "serving", "superseded", "failed"
_TICK = timedelta(microseconds=1)
# Columns of the fields of `Coverage`, in their order.
_COUNTS = ("images", "answered", "errors", "images_version")
_COUNTED = ("images_table", "predictions_version", "predictions_table")  # null in older rows


@dataclass(frozen=True, slots=True)
class Entry:
    """One row of the table."""

    version: Version
    """The version, with the alias or stage that the row is about."""
    state: str
    """`scoring`, `serving`, `superseded` or `failed`."""
    coverage: float
    """Share of the images that it had predicted, 0..1."""
    covered: Coverage | None
    """The counts behind the coverage; None in rows of the first release, which lack them."""
    reason: str
    """Why it has this state."""
    run_id: str
    """The MLflow run of the roll-out; empty in rows of the first release."""
    at: datetime
    """When it was written, UTC: later than the row before it even when the clock went back."""

    @property
    def complete_up_to(self) -> int:
        """The version of `images` whose images all had predictions when the row was written.

        A row of `predictions` that read this version or an older one was committed before, whatever
        the clock was; -1 = not known. A table of images that was removed and read
        anew counts from 0: until the next row, predictions of newer images count as older ones.
        """
        complete = self.covered is not None and not self.covered.missing
        return self.covered.images_version if self.covered and complete else -1


@dataclass(frozen=True, slots=True)
class Period:
    """A time in which a version was the serving version of an alias, or was tried for it."""

    began: Entry
    """Its first row; the reason why the serving version changed."""
    last: Entry
    """Its last row: its counts, its state, and why an attempt ended."""
    until: datetime | None
    """When it was over; None = it continues."""

    @property
    def version(self) -> Version:
        """The version, with its alias."""
        return self.began.version

    @property
    def seconds(self) -> float:
        """How long it was, until now if it continues; not below 0 when a clock was ahead."""
        return max(0.0, ((self.until or datetime.now(UTC)) - self.began.at).total_seconds())


@dataclass(frozen=True, slots=True)
class LedgerSnapshot:
    """The rows of one version of the table, from which the next row is written."""

    since: Snapshot | None
    """The version that was read; None = there is no table."""
    entries: tuple[Entry, ...]
    """The rows of all aliases in their order."""

    def aliases(self, named: Sequence[str] = ()) -> list[str]:
        """The aliases and stages that are named, or all in the table, by name.

        Raises:
            UserError: None is named, and none is in the table.
        """
        found = list(named) or self.known()
        if not found:
            raise UserError(
                "No alias is rolled out in this lake yet. Name one: "
                "mlflow run . -e rescore -P pointers=models:/photos@champion"
            )
        return found

    def known(self) -> list[str]:
        """All aliases and stages in the table, by name."""
        return sorted({entry.version.pointer or "" for entry in self.entries})

    def rows(self, alias: str) -> list[Entry]:
        """The rows of one alias in their order."""
        return [entry for entry in self.entries if entry.version.pointer == alias]

    def serving(self, alias: str, at: datetime | None = None) -> Entry | None:
        """The row of the serving version of an alias, now or at a time; None = none served."""
        rows = (entry for entry in reversed(self.rows(alias)) if entry.state == SERVING)
        return next((entry for entry in rows if at is None or entry.at <= at), None)

    def last(self, version: Version) -> Entry | None:
        """The last row of a version at its alias, which has its state; None = it has none."""
        return next((entry for entry in reversed(self.entries) if entry.version == version), None)

    def counted(self, version: Version, *, complete: bool = False) -> Coverage | None:
        """The last counts of a version, at any alias; None = it has none.

        With `complete` those by which it had predicted all images.
        """
        same = (
            entry.covered
            for entry in reversed(self.entries)
            if replace(entry.version, pointer=None) == replace(version, pointer=None)
        )
        return next((one for one in same if one and not (complete and one.missing)), None)

    def scoring(self, alias: str) -> set[Version]:
        """The versions of an alias whose state is `scoring`."""
        last = {entry.version: entry.state for entry in self.rows(alias)}
        return {version for version, state in last.items() if state == SCORING}

    def has_served(self, version: Version) -> bool:
        """Whether a version is the serving version of its alias, or was."""
        return any(entry.version == version and entry.state == SERVING for entry in self.entries)

    def periods(self, alias: str) -> list[Period]:
        """The serving versions of an alias, one after the other; the last one serves now."""
        rows = [entry for entry in self.rows(alias) if entry.state == SERVING]
        groups = [list(group) for _, group in groupby(rows, key=lambda entry: entry.version)]
        ends = [*(group[0].at for group in groups[1:]), None]
        return [Period(group[0], group[-1], end) for group, end in zip(groups, ends, strict=False)]

    def period_at(self, alias: str, at: datetime | None) -> Period | None:
        """The period at a time (None = now); None = no version served."""
        rows = reversed(self.periods(alias))
        return next((period for period in rows if at is None or period.began.at <= at), None)

    def attempts(self, alias: str) -> list[Period]:
        """Versions that were rolled out and did not serve, by the time at which they began.

        The state of their last row says how they ended: `failed`, `superseded` by another version
        before all was scored, or `scoring`, which continues.
        """
        ongoing: dict[Version, Entry] = {}
        last: dict[Version, Entry] = {}
        found = []
        for entry in self.rows(alias):
            last[entry.version] = entry
            if entry.state == SCORING:
                ongoing.setdefault(entry.version, entry)
                continue
            began = ongoing.pop(entry.version, None)
            if entry.state != SERVING and (began or entry.state == FAILED):
                found.append(Period(began or entry, entry, entry.at))
        found += [Period(began, last[version], None) for version, began in ongoing.items()]
        return sorted(found, key=lambda period: period.began.at)


def read(lake: str) -> LedgerSnapshot:
    """The newest version of a lake's table; without rows when there is no table yet.

    Raises:
        UserError: It cannot be read, or has other columns.
    """
    return _snapshot(lake, snapshots.newest(lake, "rollouts"))


def read_to_write(lake: str, alias: str) -> LedgerSnapshot:
    """As `read`, to write rows of one alias or stage; makes the table if it is not there yet."""
    return _snapshot(lake, snapshots.to_append(lake, "rollouts", f"rollout:{alias}"))


def write(rows: LedgerSnapshot, entries: Sequence[Entry]) -> LedgerSnapshot | None:
    """Appends rows of one alias in one commit, each `at` a time after the alias's last row.

    They were computed from `rows`, as `read_to_write` gives it. None = another writer was first:
    observe again.

    Raises:
        MachineError: It cannot be written, as on a full disk.
    """
    if rows.since is None:
        raise ValueError("rows must come from read_to_write")
    before = rows.rows(entries[0].version.pointer or "")
    at = max([datetime.now(UTC), *(entry.at + _TICK for entry in before[-1:])])
    timed = [replace(entry, at=at + place * _TICK) for place, entry in enumerate(entries)]
    data = pa.Table.from_pylist([_row(entry) for entry in timed], schema=SCHEMAS["rollouts"])
    since = commits.append_rows(data, rows.since)
    return None if since is None else LedgerSnapshot(since, (*rows.entries, *timed))


def moment(text: str) -> datetime:
    """The time that a text names: of a date its end; without a zone it is UTC.

    Raises:
        UserError: It is not a time of ISO 8601.
    """
    try:
        return datetime.combine(date.fromisoformat(text), time.max, UTC)
    except ValueError:
        pass  # no date
    try:
        found = datetime.fromisoformat(text)
        return found.astimezone(UTC) if found.tzinfo else found.replace(tzinfo=UTC)
    except (ValueError, OverflowError) as error:
        raise UserError(
            f"{text!r} is not a time. Write for example 2026-01-31 or 2026-01-31T12:00:00"
        ) from error


def _snapshot(lake: str, since: Snapshot | None) -> LedgerSnapshot:
    if since is None:
        return LedgerSnapshot(None, ())
    found = queries.query(lake, "SELECT * FROM rollouts", rollouts=since)
    return LedgerSnapshot(since, tuple(_entry(row) for row in found.sort_by("at").to_pylist()))


def _entry(row: Mapping[str, Any]) -> Entry:
    counts: list[Any] = [row.get(name) for name in _COUNTS]
    counted: list[Any] = [row.get(name) for name in _COUNTED]
    if None not in counted:
        counts += counted
    return Entry(
        Version(row["model_name"], row["model_version"], row["model_id"], row["pointer"]),
        row["state"],
        row["coverage"],
        None if None in counts else Coverage(*counts),
        row.get("reason") or "",  # older tables lack it
        row.get("run_id") or "",
        row["at"],
    )


def _row(entry: Entry) -> dict[str, Any]:
    names = (*_COUNTS, *_COUNTED)
    counts = astuple(entry.covered) if entry.covered else (None,) * len(names)
    return {
        "pointer": entry.version.pointer,
        "model_name": entry.version.name,
        "model_version": entry.version.version,
        "model_id": entry.version.model_id,
        "state": entry.state,
        "coverage": entry.coverage,
        **dict(zip(names, counts, strict=True)),
        "reason": mask(entry.reason),
        "run_id": entry.run_id,
        "at": entry.at,
    }
