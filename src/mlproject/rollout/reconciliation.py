"""Making readers follow a moved pointer: one look at it, from `scoring` to `serving`.

It is pinned and fenced: before readers switch, the pointer is read again. Whatever ends it, the
rows of `predictions` are true and stay, and the next one goes on from there.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from mlflow import MlflowClient

from mlproject.errors import RefusedError, UserError
from mlproject.rollout import ledger
from mlproject.rollout.ledger import FAILED, SCORING, SERVING, SUPERSEDED, Entry, Page
from mlproject.scoring import coverage
from mlproject.scoring.coverage import Coverage
from mlproject.scoring.scorer import ScoringResult
from mlproject.versions.registry import Version, resolve, resolve_pointer

Stop = Callable[[], bool]


@dataclass(frozen=True, slots=True)
class Rules:
    """When readers may switch to a version."""

    min_coverage: float = 1.0
    """Share of the images that it must have answered, 0..1."""
    max_error_rate: float = 0.05
    """Share of the images readable before on which it may give an error, 0..1."""
    retry: bool = False
    """Whether versions that have failed at a pointer are tried again."""


@dataclass(frozen=True, slots=True)
class Work:
    """What a look has done for it by its verb, which owns sessions and runs."""

    score: Callable[[Version, Stop], ScoringResult | None]
    """Scores what is pending for a version within the verb's limits, until it is told to stop;
    None = there was nothing left of the limits."""
    run_id: Callable[[Version, Entry | None], str]
    """The MLflow run of a version's roll-out at its pointer, given its last row there."""
    wrote: Callable[[Entry], None]
    """Told of each row after it was committed."""
    stop: Stop
    """Whether the verb is to end."""


@dataclass(frozen=True, slots=True)
class Followed:
    """What following one pointer came to."""

    version: Version
    """The version behind the pointer now."""
    before: Version | None
    """The version that readers saw before; None = none."""
    state: str
    """State of the version: `serving`, or `scoring` when something is left to score."""
    covered: Coverage
    """How much of the images it has answered."""
    images: int
    """Images that were scored, those of the version before among them."""
    switched: bool
    """Whether readers see another version than before."""
    trouble: str
    """Why the version that readers saw could not be kept up to date; empty = it could."""


def follow(
    client: MlflowClient, lake: str, pointer: str, work: Work, *, rules: Rules = Rules()
) -> Followed:
    """Scores what the version behind a pointer has not said, then lets readers see it.

    Until then readers see the version before, which is kept up to date. When the pointer moves
    meanwhile, the look begins anew with the version behind it now.

    Args:
        client: The registry.
        lake: As `lakes.locate` gives it, with a table of images.
        pointer: An alias or stage URI.
        work: What the verb does for it.
        rules: When readers may switch.

    Raises:
        UserError: The pointer names no version, or is a version by number; or images, or the
            files of the version, cannot be read.
        RefusedError: The version has failed, now or before; the ledger says why.
    """
    look = _Look(client, lake, resolve_pointer(client, pointer), work, rules)
    while True:
        look.begin()
        look.keep_up_to_date()
        if look.roll_out():
            return look.followed()


class _Look:
    """One look at a pointer at work."""

    def __init__(
        self, client: MlflowClient, lake: str, target: Version, work: Work, rules: Rules
    ) -> None:
        self.client, self.lake, self.work, self.rules = client, lake, work, rules
        self.target, self.pointer = target, str(target.pointer)
        self.page = ledger.read_to_write(lake, self.pointer)
        self.images = coverage.newest_images(self.lake)
        now = self.page.serving(self.pointer)
        self.before = now.version if now else None
        self.covered = Coverage(0, 0, 0, 0)  # of the target
        self.seen = self.covered  # of the version that readers see, while it is another
        self.failed: Entry | None = None  # what the ledger says of a target that is not tried
        self.scored = self.waves = 0
        self.trouble = ""

    def begin(self) -> None:
        """Counts what the target lacks; versions that the pointer has left are scored no more."""
        self.covered, _ = coverage.count(self.lake, self.target, self.images)
        last = self.page.last(self.target)
        self.failed = last if last and last.state == FAILED and not self.rules.retry else None
        others = {entry.version for entry in self.page.of(self.pointer)} - {self.target}
        for version in others:
            last = self.page.last(version)
            if last and last.state == SCORING:
                covered, _ = coverage.count(self.lake, version, self.images)
                self._write(self._entry(version, SUPERSEDED, covered, self._moved_on()))

    def keep_up_to_date(self) -> None:
        """Scores new images with the version that readers see, while it is not the target.

        But not when the target lacks no more, as in going back: it is sooner scored itself.
        """
        now = self.page.serving(self.pointer)
        if now is None or self._serves():
            return
        self.seen, _ = coverage.count(self.lake, now.version, self.images)
        sooner = not self.failed and self.covered.missing <= self.seen.missing
        if sooner or not self.seen.missing:
            return
        try:
            self._score(now.version, self.work.stop)
        except (UserError, RefusedError) as error:  # such as a version that was deleted
            self.trouble = str(error)
        # What came meanwhile is theirs at the next look: else arrivals would hold the target up.
        self.images = coverage.newest_images(self.lake)
        self.covered, _ = coverage.count(self.lake, self.target, self.images)
        self.seen, _ = coverage.count(self.lake, now.version, self.images)
        if not self.seen.missing:
            self._write(self._entry(now.version, SERVING, self.seen, "images came"))

    def roll_out(self) -> bool:
        """Brings the target as far as it comes; whether the look has ended."""
        if self.failed:
            told = UserError if self.trouble else RefusedError  # of what readers see, if there is
            raise told(
                f"{self.pointer}: {self.target.uri} failed before ({self.failed.reason}). "
                f"{self._readers()}. Point at another version, or run again with -P retry=true"
                + (f". {self.trouble}" if self.trouble else "")
            )
        unreadable, last = 0, self.page.last(self.target)
        if self.covered.missing:
            begun = last is not None and last.state in (SCORING, SERVING)
            row = self._entry(self.target, SCORING, self.covered, self._why())
            if not begun and not self._write(row):
                return False
            self.waves = 0
            try:
                unreadable = self._score(self.target, self._interrupted)
            except RefusedError as error:
                if not self.work.stop():  # who stops us may have stopped the workers too
                    self._fail(str(error))
        # The ledger first, then the pointer: who moves readers after it makes our row lose.
        self.page = self._reread()
        moved = resolve(self.client, self.pointer)
        seen, self.images = self.images, coverage.newest_images(self.lake)
        if self.covered.missing or self.images.version != seen.version:
            self.covered, _ = coverage.count(self.lake, self.target, self.images)
        if moved != self.target:
            self.target = moved
            return False
        if self.covered.missing and self.images.version != seen.version and not self.work.stop():
            return False
        return self._settled(unreadable)

    def followed(self) -> Followed:
        """What the look came to."""
        state = SERVING if self._serves() else SCORING
        switched = self._serves() and self.before != self.target
        return Followed(
            self.target, self.before, state, self.covered, self.scored, switched, self.trouble
        )

    def _settled(self, unreadable: int) -> bool:
        """Switches readers where that is right; False = the look goes on."""
        now, serves = self.page.serving(self.pointer), self._serves()
        # Who has served is gone back to, whatever it cannot read.
        if not self.page.has_served(self.target):
            before = now.version if now else None
            lost = coverage.count_errors(self.lake, self.target, before, self.images)
            if lost.rate > self.rules.max_error_rate:
                self._fail(
                    f"errors on {lost.errors} of {lost.predicted} images that were readable before"
                    f", more than max_error_rate={self.rules.max_error_rate:g}"
                )
            if lost.lost_rate > self.rules.max_error_rate:  # no fault of the version
                raise UserError(
                    f"{self.pointer}: the files of {lost.lost} of {lost.predicted} images readable "
                    "before are gone or changed, so readers stay where they are. Switch without "
                    f"them: -P max_error_rate={math.ceil(lost.lost_rate * 100) / 100:g}; "
                    "if they are back, register the version again, as its answers stay"
                )
        if self.covered.share < (1 if serves else self.rules.min_coverage):
            if unreadable:
                raise UserError(
                    f"{self.pointer}: {unreadable} images cannot be read from their files now, so "
                    "readers stay where they are. Make the files readable (an empty folder counts "
                    "as a disk that is not mounted: remove it, if it is none) and run again"
                )
            if not serves:
                why = "stopped" if self.work.stop() else "a limit of the run was reached"
                self._write(self._entry(self.target, SCORING, self.covered, why))
            return True
        known = now.covered if now and serves else None
        if known and known == replace(self.covered, images_version=known.images_version):
            return True  # nothing that a row would tell
        entries = [self._entry(self.target, SERVING, self.covered, self._why())]
        if now is not None and not serves:
            entries.insert(0, self._entry(now.version, SUPERSEDED, self.seen, self._moved_on()))
        return self._write(*entries)

    def _score(self, version: Version, stop: Stop) -> int:
        """Scores a version; how many images of it cannot be read now."""
        scored = self.work.score(version, stop)
        if scored is None:
            return 0
        self.scored += scored.images
        return scored.unreadable

    def _interrupted(self) -> bool:
        """Whether the target's scoring is to end after the wave at hand."""
        if self.work.stop() or resolve(self.client, self.pointer) != self.target:
            return True
        now, self.waves = self.page.serving(self.pointer), self.waves + 1
        if self.waves == 1 or now is None or self._serves():
            return False
        # After a wave: images that came are readers' first; errors without a remedy end it early.
        if coverage.newest_images(self.lake).version != self.images.version:
            return True
        lost = coverage.count_errors(self.lake, self.target, now.version, self.images)
        too_many = lost.errors > self.rules.max_error_rate * lost.readable
        return too_many and not self.page.has_served(self.target)

    def _fail(self, reason: str) -> None:
        """Writes down that the target has failed, and raises."""
        self.covered, _ = coverage.count(self.lake, self.target, self.images)
        while not self._serves():  # again when another row of this pointer came first
            if self._write(self._entry(self.target, FAILED, self.covered, reason)):
                break
        raise RefusedError(f"{self.pointer}: {self.target.uri} failed: {reason}. {self._readers()}")

    def _write(self, *entries: Entry) -> bool:
        """Commits rows of the ledger; False when another came first, and the look goes on."""
        written = ledger.write(self.page, entries)
        if written is None:
            self.page = self._reread()
            return False
        self.page = written
        for entry in written.entries[-len(entries) :]:
            self.work.wrote(entry)
        return True

    def _entry(self, version: Version, state: str, covered: Coverage, reason: str) -> Entry:
        version = replace(version, pointer=self.pointer)
        last = self.page.last(version)
        ends = state == SUPERSEDED and last is not None
        run_id = last.run_id if last and ends else self.work.run_id(version, last)
        return Entry(version, state, covered.share, covered, reason, run_id, datetime.now(UTC))

    def _reread(self) -> Page:
        return ledger.read_to_write(self.lake, self.pointer)

    def _serves(self) -> bool:
        """Whether readers see the target."""
        now = self.page.serving(self.pointer)
        return now is not None and now.version == self.target

    def _why(self) -> str:
        now = self.page.serving(self.pointer)
        if now is None:
            return "the first version at this pointer"
        return "images came" if self._serves() else f"the pointer moved from {now.version.uri}"

    def _moved_on(self) -> str:
        return f"the pointer moved to {self.target.uri}"

    def _readers(self) -> str:
        now = self.page.serving(self.pointer)
        return f"Readers stay on {now.version.uri}" if now else "Readers see nothing yet"
