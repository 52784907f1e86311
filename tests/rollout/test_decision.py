"""The rules of decision 12 as a table: what was observed, and the step that follows."""

from dataclasses import replace

import pytest

from mlproject.errors import RefusedError, UserError
from mlproject.rollout.decision import (
    Attempt,
    Done,
    Observed,
    Policy,
    Raise,
    Record,
    Score,
    VersionStatus,
    cannot_recover,
    next_step,
)
from mlproject.rollout.ledger import Entry
from mlproject.scoring.coverage import Coverage, ErrorCounts
from tests.support.lakes import version

V1, V2, V3 = version(1), version(2), version(3)
FULL, HALF, EMPTY = Coverage(10, 10, 0, 5), Coverage(10, 5, 0, 5), Coverage(10, 0, 0, 5)
LATER = Coverage(12, 10, 0, 6)  # two images came since
POLICY = Policy(max_error_rate=0.1)


def row(state, reason="", covered=None):
    """The last row of a version."""
    return Entry(None, state, 1.0, covered, reason, "", None)


def record(version, state, reason):
    """One new state."""
    return Record(((version, state, reason),))


# Version 2 serves instead of version 1.
MOVED_FROM, MOVED_TO = "moved from models:/photos/1", "moved to models:/photos/2"
SWITCH = Record(((V1, "superseded", MOVED_TO), (V2, "serving", MOVED_FROM)))
SCORE_NEXT = Score(V2, MOVED_FROM)
SCORE_SERVING = Score(V1, "new images")
LIMITED = record(V2, "scoring", "a limit of the run was reached")

FIRST = Observed(VersionStatus(V1, EMPTY))
SERVED = VersionStatus(V1, FULL, row("serving", "the first version", FULL), has_served=True)
MOVED = Observed(VersionStatus(V2, EMPTY), SERVED)
SETTLED = Observed(SERVED, SERVED)


def target(seen=MOVED, **changes):
    """The observation with another status of its target."""
    return replace(seen, target=replace(seen.target, **changes))


def served(counted, seen=MOVED):
    """The observation with another coverage of its serving version."""
    return replace(seen, serving=replace(seen.serving, coverage=counted))


def grown(counted):
    """The target serves, and images came or went."""
    status = replace(SERVED, coverage=counted)
    return Observed(status, status)


TRIED, KEPT = Attempt(V2, 5), Attempt(V1, 5, is_target=False)
FAILED = target(last=row("failed", "too slow"))
COMPLETE = target(coverage=FULL, last=row("scoring"))
PARTLY = replace(target(coverage=HALF, last=row("scoring")), attempt=TRIED)
STAYS = "The serving version stays models:/photos/1"
BEFORE = f"models:/photos/2 failed before (too slow). {STAYS}. "
BEFORE += "Move the alias to another version, or run again with -P retry=true"


@pytest.mark.parametrize(
    ("rule", "seen", "step"),
    [
        ("a first version is scored", FIRST, Score(V1, "the first version")),
        (
            "and serves when complete",
            target(FIRST, coverage=FULL),
            record(V1, "serving", "the first version"),
        ),
        ("a moved alias scores the new version", MOVED, SCORE_NEXT),
        ("which then serves", COMPLETE, SWITCH),
        ("nothing new, nothing to do", SETTLED, Done()),
        (
            "a new version of images without other counts is no news",
            grown(replace(FULL, images_version=9)),
            Done(),
        ),
        (
            "new images of the serving version are scored, and single images isolated",
            grown(LATER),
            SCORE_SERVING,
        ),
        (
            "its new coverage is recorded",
            grown(Coverage(12, 12, 0, 6)),
            record(V1, "serving", "new images"),
        ),
        ("what the serving version lacks comes first", served(LATER), SCORE_SERVING),
        ("unless the target is complete sooner", target(served(LATER), coverage=LATER), SCORE_NEXT),
        ("or is complete, as in going back", target(served(LATER), coverage=FULL), SWITCH),
        (
            "after its turn its coverage is recorded",
            replace(served(Coverage(12, 12, 0, 6)), attempt=KEPT),
            record(V1, "serving", "new images"),
        ),
        (
            "after its turn the target has one, also if more images came",
            replace(served(LATER), attempt=KEPT),
            SCORE_NEXT,
        ),
        (
            "also if the serving version could not be scored",
            replace(served(LATER), attempt=replace(KEPT, failure="its files are gone")),
            SCORE_NEXT,
        ),
        (
            "images that came while the target was scored are the serving version's first",
            target(served(LATER, PARTLY), coverage=Coverage(12, 5, 0, 6)),
            SCORE_SERVING,
        ),
        (
            "a version that failed is failed",
            replace(MOVED, attempt=replace(TRIED, failure="a worker died")),
            record(V2, "failed", "a worker died"),
        ),
        (
            "also if the alias was moved meanwhile",
            replace(
                target(version=V3),
                attempt=replace(TRIED, failure="a worker died"),
                abandoned=(V2,),
            ),
            record(V2, "failed", "a worker died"),
        ),
        (
            "but not if it is the serving version",
            replace(grown(LATER), attempt=Attempt(V1, 5, failure="a worker died")),
            Raise(RefusedError, f"models:/photos/1 failed: a worker died. {STAYS}"),
        ),
        (
            "versions that the alias left are superseded first",
            replace(target(version=V3), abandoned=(V2,)),
            record(V2, "superseded", "moved to models:/photos/3"),
        ),
        ("a version that failed before is not tried again", FAILED, Raise(RefusedError, BEFORE)),
        (
            "but the serving version is kept up to date",
            target(served(LATER, FAILED), coverage=FULL),
            SCORE_SERVING,
        ),
        (
            "and trouble with that one is reported",
            replace(FAILED, attempt=replace(KEPT, failure="no files")),
            Raise(UserError, f"{BEFORE}. no files"),
        ),
        (
            "too many errors fail the target",
            replace(COMPLETE, errors=ErrorCounts(10, 10, 2, 0)),
            record(
                V2,
                "failed",
                "errors on 2 of 10 images that were readable before, more than max_error_rate=0.1",
            ),
        ),
        ("few errors do not", replace(COMPLETE, errors=ErrorCounts(10, 10, 1, 0)), SWITCH),
        (
            "a scoring that too many errors ended early fails",
            replace(PARTLY, errors=ErrorCounts(10, 5, 2, 0)),
            record(
                V2,
                "failed",
                "errors on 2 of 5 images that were readable before, more than max_error_rate=0.1",
            ),
        ),
        (
            "a version that has served is gone back to whatever its errors are",
            replace(target(COMPLETE, has_served=True), errors=ErrorCounts(10, 10, 9, 0)),
            SWITCH,
        ),
        (
            "lost files are no fault of the target, which does not serve",
            replace(COMPLETE, errors=ErrorCounts(10, 10, 0, 2)),
            Raise(
                UserError,
                "the files of 2 of 10 images that were readable before are gone or changed. "
                f"{STAYS}. Accept the loss: -P max_error_rate=0.2; or bring the files back and "
                "run again with -P retry=gone,changed",
            ),
        ),
        (
            "files that cannot be read now keep the target from serving",
            replace(PARTLY, attempt=replace(TRIED, unreadable=5)),
            Raise(
                UserError,
                f"5 images cannot be read from their files now. {STAYS}. Make the files readable "
                "(an empty folder counts as an unmounted disk: remove it if it is not one) "
                "and run again",
            ),
        ),
        ("a limit pauses the roll-out", PARTLY, LIMITED),
        ("a limit that is used up allows no scoring", replace(MOVED, limit_reached=True), LIMITED),
        ("not even by the serving version", replace(served(LATER), limit_reached=True), LIMITED),
        (
            "a stop pauses the roll-out",
            replace(PARTLY, stopped=True),
            record(V2, "scoring", "stopped"),
        ),
        (
            "also if images came meanwhile",
            replace(target(served(LATER, PARTLY), coverage=LATER), stopped=True),
            record(V2, "scoring", "stopped"),
        ),
        (
            "a stop after the last image does not keep it from serving",
            replace(COMPLETE, stopped=True),
            SWITCH,
        ),
        (
            "a serving version that a limit holds up has no state to record",
            replace(grown(LATER), limit_reached=True),
            Done(),
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_each_observation_has_one_next_step(rule, seen, step):
    assert step == next_step(seen, POLICY)


@pytest.mark.parametrize(
    ("rule", "policy", "seen", "step"),
    [
        (
            "a version that failed is tried again when asked",
            Policy(retry=True),
            FAILED,
            SCORE_NEXT,
        ),
        (
            "enough coverage serves",
            Policy(min_coverage=0.5),
            PARTLY,
            SWITCH,
        ),
        (
            "too little does not",
            Policy(min_coverage=0.6),
            PARTLY,
            LIMITED,
        ),
        (
            "the serving version is scored whatever coverage is enough",
            Policy(min_coverage=0.5),
            grown(LATER),
            SCORE_SERVING,
        ),
        (
            "the loss of files can be accepted",
            Policy(max_error_rate=0.2),
            replace(COMPLETE, errors=ErrorCounts(10, 10, 0, 2)),
            SWITCH,
        ),
    ],
)
def test_the_policy_decides(rule, policy, seen, step):
    assert step == next_step(seen, policy)


@pytest.mark.parametrize(("errors", "hopeless"), [(1, False), (2, True)])
def test_errors_cannot_be_made_good_when_they_exceed_the_rate_of_all_images(errors, hopeless):
    assert hopeless == cannot_recover(ErrorCounts(10, 4, errors, 0), POLICY)


def test_a_row_that_another_writer_committed_first_is_decided_anew():
    """The loop observes again after a lost commit: with the other's row there is nothing to do."""
    assert SWITCH == next_step(COMPLETE, POLICY)
    status = VersionStatus(V2, FULL, row("serving", covered=FULL), has_served=True)
    assert Done() == next_step(Observed(status, status), POLICY)
