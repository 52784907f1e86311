"""Reconciliation of one alias or stage: observe, decide, apply, until nothing is left to do.

A version is resolved once and pinned, and the alias is resolved again before the serving version
changes. Whatever ends a reconciliation, the committed rows of `predictions` are valid and stay, and
the next reconciliation continues from there.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial

from mlproject.errors import RefusedError, UserError
from mlproject.rollout import decision, ledger
from mlproject.rollout.decision import Attempt, Change, Observed, Policy, Score, VersionStatus
from mlproject.rollout.ledger import FAILED, SCORING, SERVING, SUPERSEDED, Entry, LedgerSnapshot
from mlproject.rollout.runs import record_missed
from mlproject.rollout.version_scoring import Stop, VersionScorer
from mlproject.scoring import coverage
from mlproject.scoring.coverage import Coverage, Tables
from mlproject.scoring.scorer import ScoringResult, total
from mlproject.versions.registry import resolve, resolve_pointer
from mlproject.versions.version import Version


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
    def switched(self) -> bool:
        """Whether another version serves than before."""
        return self.state == SERVING and self.before != self.version


@dataclass(frozen=True, slots=True)
class _Context:
    """What all steps of one reconciliation share."""

    alias: str
    scorer: VersionScorer
    policy: Policy
    stop: Stop
    verify: bool
    counted: dict[Version, Coverage] = field(default_factory=dict)
    """The last coverage of each version."""
    results: list[ScoringResult] = field(default_factory=list)
    retried: dict[Version, str] = field(default_factory=dict)
    """The errors of a version that were scored again, with their times."""


def reconcile(
    alias: str, scorer: VersionScorer, policy: Policy, stop: Stop, *, verify: bool = False
) -> RolloutResult:
    """Rolls out the version behind an alias: scores what is missing, then lets it serve.

    Until then the version before serves and is kept up to date. When the alias is moved meanwhile,
    the version that it names then is rolled out instead. At the end MLflow gets what earlier runs
    could not record. `stop` is called before each micro-batch; true ends the reconciliation. With
    `verify` every id is counted, whatever earlier counts say.

    Raises:
        UserError: The alias names no version, or is a version by number; or images, or the files
            of the version, cannot be read.
        RefusedError: The version failed, now or before; table `rollouts` has the reason.
        MachineError: The machine fails repeatedly; the next reconciliation continues.
    """
    alias = str(resolve_pointer(scorer.client, alias).pointer)
    context = _Context(alias, scorer, policy, stop, verify)
    attempt: Attempt | None = None
    trouble = ""
    seen, rows = _observe(context, attempt)
    before = seen.serving.version if seen.serving else None
    while True:
        step = decision.next_step(seen, policy)
        if isinstance(step, decision.Done):
            state = SERVING
            break
        if isinstance(step, decision.Raise):
            raise step.error(f"{alias}: {step.message}")
        if isinstance(step, Score):
            tried = _score(context, seen, rows, step)
            if tried:
                attempt = tried
                trouble = trouble if attempt.is_target else attempt.failure
        elif _write(context, seen, rows, step.changes):
            version, state, reason = step.changes[-1]
            if state == FAILED:
                failed = f"{alias}: {version.uri} failed: {reason}. {decision.serving_stays(seen)}"
                retry = decision.advice(seen.stored)
                raise RefusedError(f"{failed}. To try again: {retry}" if retry else failed)
            if version == seen.target.version:
                break
        seen, rows = _observe(context, attempt)
    record_missed(scorer.client, ledger.read(scorer.lake), alias)
    target, scored = seen.target, total(context.results) if context.results else None
    return RolloutResult(target.version, before, state, target.coverage, scored, trouble)


def _observe(context: _Context, attempt: Attempt | None) -> tuple[Observed, LedgerSnapshot]:
    """All that the next decision depends on, and the rows of `rollouts` that it was read from."""
    lake, alias = context.scorer.lake, context.alias
    # The rows are read before the alias: if it is moved and rolled out after that, our row loses.
    rows = ledger.read_to_write(lake, alias)
    target = resolve(context.scorer.client, alias)
    entry = rows.serving(alias)
    serving = entry.version if entry else None

    def observed(tables: Tables) -> Observed:
        def status(version: Version) -> VersionStatus:
            counted = _count(context, version, rows, tables)
            return VersionStatus(version, counted, rows.last(version), rows.has_served(version))

        found = status(target)
        errors, stored = decision.NO_ERRORS, coverage.NONE_STORED
        if found.coverage.errors:
            if not found.has_served:
                errors = coverage.count_errors(tables, target, serving)
            codes = context.policy.retry_errors or coverage.RETRYABLE
            stored = coverage.stored_errors(tables, target, codes)
        return Observed(
            found,
            status(serving) if serving else None,
            errors,
            stored,
            context.retried.get(target, ""),
            tuple(sorted(rows.scoring(alias) - {target}, key=lambda one: one.version)),
            attempt,
            context.stop(),
            context.scorer.budget.is_spent(),
        )

    return coverage.read_newest(lake, observed), rows


def _count(context: _Context, version: Version, rows: LedgerSnapshot, tables: Tables) -> Coverage:
    """The coverage of a version, from what this reconciliation or table `rollouts` knows of it."""
    known = context.counted.get(version) or (None if context.verify else rows.counted(version))
    context.counted[version] = counted = coverage.count(tables, version, known)
    return counted


def _score(context: _Context, seen: Observed, rows: LedgerSnapshot, step: Score) -> Attempt | None:
    """Scores a version; None = observe again: another writer was first, or errors were retried."""
    version, last = step.version, rows.last(step.version)
    is_target, counted = version == seen.target.version, seen.target.coverage
    context.scorer.runs.began(version, last)
    is_recorded = last is not None and last.state in (SCORING, SERVING) and not step.retry
    state = SERVING if step.retry and seen.serves else SCORING
    if not is_recorded and not _write(context, seen, rows, [(version, state, step.reason)]):
        return None
    attempt = Attempt(version, counted.images_version, is_target=is_target)
    if not context.verify:
        step = replace(step, complete=rows.counted(version, complete=True))
    try:
        follows_alias = is_target and not step.retry
        stop = _stop_of_target(context, seen, rows) if follows_alias else context.stop
        result = context.scorer.score(step, stop)
    except (RefusedError, UserError) as error:
        if is_target and isinstance(error, UserError):
            raise
        # What stops us may have stopped the workers too.
        stopped = is_target and context.stop()
        return replace(attempt, failure="" if stopped else str(error))
    context.results.append(result)
    if step.retry:
        context.retried[version] = step.reason
        del context.counted[version]  # its errors are others now
        return None
    return replace(attempt, unreadable=result.unreadable)


def _stop_of_target(context: _Context, seen: Observed, rows: LedgerSnapshot) -> Stop:
    """Whether the target's scoring is to end after the micro-batch at hand."""
    calls, target = itertools.count(), seen.target.version
    serving = seen.serving.version if seen.serving else None

    def stop() -> bool:
        if context.stop() or resolve(context.scorer.client, context.alias) != target:
            return True
        if next(calls) == 0 or serving is None or seen.serves:
            return False
        return coverage.read_newest(context.scorer.lake, is_hopeless)

    def is_hopeless(tables: Tables) -> bool:
        if tables.images.version != seen.target.coverage.images_version:
            return True  # the serving version predicts new images first
        if seen.target.has_served or not _count(context, target, rows, tables).errors:
            return False
        errors = coverage.count_errors(tables, target, serving)
        return decision.cannot_recover(errors, context.policy)

    return stop


def _write(
    context: _Context, seen: Observed, rows: LedgerSnapshot, changes: Sequence[Change]
) -> bool:
    """Commits versions with their new states; False = another writer was first: observe again."""
    lake, runs = context.scorer.lake, context.scorer.runs
    coverages = {one.version: one.coverage for one in (seen.serving, seen.target) if one}
    entries = []
    for version, state, reason in changes:
        counted, last = coverages.get(version), rows.last(version)
        if counted is None:
            counted = coverage.read_newest(lake, partial(_count, context, version, rows))
        ends = state == SUPERSEDED and last is not None
        run_id = last.run_id if last and ends else runs.began(version, last)
        now = datetime.now(UTC)
        entries.append(Entry(version, state, counted.share, counted, reason, run_id, now))
    written = ledger.write(rows, entries)
    if written is None:
        return False
    for entry in written.entries[-len(entries) :]:
        runs.row_written(entry)
    return True
