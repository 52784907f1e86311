"""Reconciliation of one alias or stage: observe, decide, apply, until nothing is left to do.

A version is resolved once and pinned, and the alias is resolved again before the serving version
changes. Whatever ends a reconciliation, the committed rows of `predictions` are valid and stay, and
the next reconciliation continues from there.
"""

import itertools
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from mlflow import MlflowClient

from mlproject.errors import RefusedError, UserError
from mlproject.rollout import ledger
from mlproject.rollout.decision import (
    NO_ERRORS,
    Attempt,
    Block,
    Fail,
    Observed,
    Pause,
    Policy,
    Refuse,
    Score,
    Serve,
    Step,
    Supersede,
    VersionStatus,
    cannot_recover,
    is_last,
    next_step,
    serving_stays,
)
from mlproject.rollout.ledger import FAILED, SCORING, SERVING, SUPERSEDED, Entry, LedgerSnapshot
from mlproject.rollout.runs import RolloutRuns
from mlproject.rollout.version_scoring import Stop, VersionScorer
from mlproject.scoring import coverage
from mlproject.scoring.coverage import Coverage
from mlproject.scoring.scorer import ScoringResult, total
from mlproject.versions.registry import resolve, resolve_pointer
from mlproject.versions.version import Version

DEFAULT = Policy()


@dataclass(frozen=True, slots=True)
class RolloutResult:
    """The result of one reconciliation."""

    version: Version
    """The version that the alias names now."""
    before: Version | None
    """The serving version before; None = none."""
    state: str
    """State of the version: `serving`, or `scoring` when something is left to score."""
    coverage: Coverage
    """How much of the images it has predicted."""
    scored: ScoringResult | None
    """What was scored, by the version before too; None = nothing had to be."""
    trouble: str
    """Why the version before could not be kept up to date; empty = it could."""

    @property
    def images(self) -> int:
        """Images that were scored."""
        return self.scored.images if self.scored else 0

    @property
    def switched(self) -> bool:
        """Whether another version serves than before."""
        return self.state == SERVING and self.before != self.version


@dataclass(frozen=True, slots=True)
class _Context:
    """What all steps of one reconciliation share."""

    client: MlflowClient
    lake: str
    alias: str
    scorer: VersionScorer
    runs: RolloutRuns
    policy: Policy
    stop: Stop


def reconcile(
    client: MlflowClient,
    lake: str,
    alias: str,
    scorer: VersionScorer,
    runs: RolloutRuns,
    *,
    policy: Policy = DEFAULT,
    stop: Stop = lambda: False,
) -> RolloutResult:
    """Rolls out the version behind an alias: scores what is missing, then lets it serve.

    Until then the version before serves and is kept up to date. When the alias is moved meanwhile,
    the version that it names then is rolled out instead.

    Args:
        client: The registry.
        lake: As `location.locate` gives it, with a table of images.
        alias: URI of an alias or stage.
        scorer: Scores versions.
        runs: Records the roll-outs in MLflow.
        policy: When a version may become the serving version.
        stop: Called before each micro-batch; true ends the reconciliation.

    Raises:
        UserError: The alias names no version, or is a version by number; or images, or the files
            of the version, cannot be read.
        RefusedError: The version failed, now or before; table `rollouts` has the reason.
    """
    alias = str(resolve_pointer(client, alias).pointer)
    context = _Context(client, lake, alias, scorer, runs, policy, stop)
    counted: dict[Version, Coverage] = {}
    results: list[ScoringResult] = []
    attempt, trouble = None, ""
    seen, rows = _observe(context, attempt, counted)
    before = seen.serving.version if seen.serving else None
    while True:
        step = next_step(seen, policy)
        if isinstance(step, Score):
            outcome = _score(context, seen, rows, step)
            if outcome:
                attempt, found = outcome
                results += found
                trouble = trouble if attempt.is_target else attempt.failure
        elif _apply(context, seen, rows, step) and is_last(seen, step):
            break
        seen, rows = _observe(context, attempt, counted)
    state = SERVING if seen.serves or isinstance(step, Serve) else SCORING
    target = seen.target
    return RolloutResult(
        target.version, before, state, target.coverage, total(results) if results else None, trouble
    )


def _observe(
    context: _Context, attempt: Attempt | None, counted: dict[Version, Coverage]
) -> tuple[Observed, LedgerSnapshot]:
    """All that the next decision depends on, and the rows of `rollouts` that it was read from.

    Args:
        context: The alias.
        attempt: The last scoring.
        counted: The last coverage of each version, which is brought up to date.
    """
    # The rows are read before the alias: if it is moved and rolled out after that, our row loses.
    rows = ledger.read_to_write(context.lake, context.alias)
    target = resolve(context.client, context.alias)
    images = coverage.newest_images(context.lake)
    serving = rows.serving(context.alias)

    def status(version: Version) -> VersionStatus:
        known, last = counted.get(version), rows.last(version)
        if known is None or known.missing or known.images_version != images.version:
            counted[version] = known = coverage.count(context.lake, version, images)[0]
        state, reason, recorded = (
            (last.state, last.reason, last.covered) if last else ("", "", None)
        )
        return VersionStatus(version, known, state, reason, recorded, rows.has_served(version))

    found = status(target)
    errors = NO_ERRORS
    if found.coverage.predicted and not found.has_served:
        before = serving.version if serving else None
        errors = coverage.count_errors(context.lake, target, before, images)
    seen = Observed(
        found,
        status(serving.version) if serving else None,
        errors,
        tuple(sorted(rows.scoring(context.alias) - {target}, key=lambda one: one.version)),
        attempt,
        context.stop(),
        context.scorer.limit_reached(),
    )
    return seen, rows


def _score(
    context: _Context, seen: Observed, rows: LedgerSnapshot, step: Score
) -> tuple[Attempt, list[ScoringResult]] | None:
    """Scores a version, and how it ended; None = another writer was first, so observe again."""
    version, last = step.version, rows.last(step.version)
    is_target, counted = version == seen.target.version, seen.target.coverage
    context.runs.began(version, last)
    is_recorded = last is not None and last.state in (SCORING, SERVING)
    if not is_recorded and not _write(context, seen, rows, [(version, SCORING, step.reason)]):
        return None
    attempt = Attempt(version, counted.images_version, is_target=is_target)
    try:
        stop = _stop_of_target(context, seen) if is_target else context.stop
        result = context.scorer.score(step, stop)
    except (RefusedError, UserError) as error:
        if is_target and isinstance(error, UserError):
            raise
        # What stops us may have stopped the workers too.
        stopped = is_target and context.stop()
        return replace(attempt, failure="" if stopped else str(error)), []
    return replace(attempt, unreadable=result.unreadable), [result]


def _stop_of_target(context: _Context, seen: Observed) -> Stop:
    """Whether the target's scoring is to end after the micro-batch at hand."""
    calls = itertools.count()

    def stop() -> bool:
        if context.stop() or resolve(context.client, context.alias) != seen.target.version:
            return True
        if next(calls) == 0 or seen.serving is None or seen.serves:
            return False
        images = coverage.newest_images(context.lake)
        if images.version != seen.target.coverage.images_version:
            return True  # the serving version predicts new images first
        if seen.target.has_served:
            return False
        target, serving = seen.target.version, seen.serving.version
        errors = coverage.count_errors(context.lake, target, serving, images)
        return cannot_recover(errors, context.policy)

    return stop


def _apply(context: _Context, seen: Observed, rows: LedgerSnapshot, step: Step) -> bool:
    """Commits the rows of a step, or raises; False = another writer was first, so observe again."""
    match step:
        case Refuse(message):
            raise RefusedError(f"{context.alias}: {message}")
        case Block(message):
            raise UserError(f"{context.alias}: {message}")
        case Supersede(versions, reason):
            changes = [(version, SUPERSEDED, reason) for version in versions]
        case Pause(reason):
            changes = [(seen.target.version, SCORING, reason)]
        case Fail(version, reason):
            changes = [(version, FAILED, reason)]
        case Serve(version, reason):
            changes = [(version, SERVING, reason)]
            if seen.serving and seen.serving.version != version:
                changes.insert(0, (seen.serving.version, SUPERSEDED, f"moved to {version.uri}"))
        case _:
            return True
    written = _write(context, seen, rows, changes)
    if written and isinstance(step, Fail):
        failed = f"{context.alias}: {step.version.uri} failed: {step.reason}"
        raise RefusedError(f"{failed}. {serving_stays(seen)}")
    return written


def _write(
    context: _Context, seen: Observed, rows: LedgerSnapshot, changes: list[tuple[Version, str, str]]
) -> bool:
    """Commits versions with their new states and reasons; False = another writer was first."""
    entries = []
    for version, state, reason in changes:
        counted, last = _coverage(context, seen, version), rows.last(version)
        ends = state == SUPERSEDED and last is not None
        run_id = last.run_id if last and ends else context.runs.began(version, last)
        now = datetime.now(UTC)
        entries.append(Entry(version, state, counted.share, counted, reason, run_id, now))
    written = ledger.write(rows, entries)
    if written is None:
        return False
    for entry in written.entries[-len(entries) :]:
        context.runs.row_written(entry)
    return True


def _coverage(context: _Context, seen: Observed, version: Version) -> Coverage:
    for status in (seen.target, seen.serving):
        if status and status.version == version:
            return status.coverage
    return coverage.count(context.lake, version, coverage.newest_images(context.lake))[0]
