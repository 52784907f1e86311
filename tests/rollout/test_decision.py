"""The rules of decision 12 as a table: what was observed, and the step that follows."""

from dataclasses import replace

import pytest

from mlproject.rollout.decision import (
    Attempt,
    Block,
    Done,
    Fail,
    Observed,
    Pause,
    Policy,
    Refuse,
    Score,
    Serve,
    Supersede,
    VersionStatus,
    cannot_recover,
    next_step,
)
from mlproject.scoring.coverage import Coverage, ErrorCounts
from tests.support.lakes import version

V1, V2, V3 = version(1), version(2), version(3)
FULL, HALF, EMPTY = Coverage(10, 10, 0, 5), Coverage(10, 5, 0, 5), Coverage(10, 0, 0, 5)
LATER = Coverage(12, 10, 0, 6)  # two images came since
POLICY = Policy(max_error_rate=0.1)

FIRST = Observed(VersionStatus(V1, EMPTY))
SERVED = VersionStatus(V1, FULL, "serving", "the first version", FULL, has_served=True)
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
FAILED = target(state="failed", reason="too slow")
COMPLETE = target(coverage=FULL, state="scoring")
PARTLY = replace(target(coverage=HALF, state="scoring"), attempt=TRIED)
STAYS = "The serving version stays models:/photos/1"
BEFORE = f"models:/photos/2 failed before (too slow). {STAYS}. "
BEFORE += "Move the alias to another version, or run again with -P retry=true"


@pytest.mark.parametrize(
    ("rule", "seen", "step"),
    [
        ("a first version is scored", FIRST, Score(V1, "the first version", quarantine=False)),
        ("and serves when complete", target(FIRST, coverage=FULL), Serve(V1, "the first version")),
        (
            "a moved alias scores the new version",
            MOVED,
            Score(V2, "moved from models:/photos/1", quarantine=False),
        ),
        ("which then serves", COMPLETE, Serve(V2, "moved from models:/photos/1")),
        ("nothing new, nothing to do", SETTLED, Done()),
        (
            "a new version of images without other counts is no news",
            grown(replace(FULL, images_version=9)),
            Done(),
        ),
        (
            "new images of the serving version are scored, and single images isolated",
            grown(LATER),
            Score(V1, "new images", quarantine=True),
        ),
        (
            "its new coverage is recorded",
            grown(Coverage(12, 12, 0, 6)),
            Serve(V1, "new images"),
        ),
        (
            "what the serving version lacks comes first",
            served(LATER),
            Score(V1, "new images", quarantine=True),
        ),
        (
            "unless the target is complete sooner",
            target(served(LATER), coverage=LATER),
            Score(V2, "moved from models:/photos/1", quarantine=False),
        ),
        (
            "or is complete, as in going back",
            target(served(LATER), coverage=FULL),
            Serve(V2, "moved from models:/photos/1"),
        ),
        (
            "after its turn its coverage is recorded",
            replace(served(Coverage(12, 12, 0, 6)), attempt=KEPT),
            Serve(V1, "new images"),
        ),
        (
            "after its turn the target has one, also if more images came",
            replace(served(LATER), attempt=KEPT),
            Score(V2, "moved from models:/photos/1", quarantine=False),
        ),
        (
            "also if the serving version could not be scored",
            replace(served(LATER), attempt=replace(KEPT, failure="its files are gone")),
            Score(V2, "moved from models:/photos/1", quarantine=False),
        ),
        (
            "images that came while the target was scored are the serving version's first",
            target(served(LATER, PARTLY), coverage=Coverage(12, 5, 0, 6)),
            Score(V1, "new images", quarantine=True),
        ),
        (
            "a version that failed is failed",
            replace(MOVED, attempt=replace(TRIED, failure="a worker died")),
            Fail(V2, "a worker died"),
        ),
        (
            "also if the alias was moved meanwhile",
            replace(
                target(version=V3),
                attempt=replace(TRIED, failure="a worker died"),
                abandoned=(V2,),
            ),
            Fail(V2, "a worker died"),
        ),
        (
            "but not if it is the serving version",
            replace(grown(LATER), attempt=Attempt(V1, 5, failure="a worker died")),
            Refuse(f"models:/photos/1 failed: a worker died. {STAYS}"),
        ),
        (
            "versions that the alias left are superseded first",
            replace(target(version=V3), abandoned=(V2,)),
            Supersede((V2,), "moved to models:/photos/3"),
        ),
        ("a version that failed before is not tried again", FAILED, Refuse(BEFORE)),
        (
            "but the serving version is kept up to date",
            target(served(LATER, FAILED), coverage=FULL),
            Score(V1, "new images", quarantine=True),
        ),
        (
            "and trouble with that one is reported",
            replace(FAILED, attempt=replace(KEPT, failure="no files")),
            Block(f"{BEFORE}. no files"),
        ),
        (
            "too many errors fail the target",
            replace(COMPLETE, errors=ErrorCounts(10, 10, 2, 0)),
            Fail(
                V2,
                "errors on 2 of 10 images that were readable before, more than max_error_rate=0.1",
            ),
        ),
        (
            "few errors do not",
            replace(COMPLETE, errors=ErrorCounts(10, 10, 1, 0)),
            Serve(V2, "moved from models:/photos/1"),
        ),
        (
            "a scoring that too many errors ended early fails",
            replace(PARTLY, errors=ErrorCounts(10, 5, 2, 0)),
            Fail(
                V2,
                "errors on 2 of 5 images that were readable before, more than max_error_rate=0.1",
            ),
        ),
        (
            "a version that has served is gone back to whatever its errors are",
            replace(target(COMPLETE, has_served=True), errors=ErrorCounts(10, 10, 9, 0)),
            Serve(V2, "moved from models:/photos/1"),
        ),
        (
            "lost files are no fault of the target, which does not serve",
            replace(COMPLETE, errors=ErrorCounts(10, 10, 0, 2)),
            Block(
                "the files of 2 of 10 images that were readable before are gone or changed. "
                f"{STAYS}. Accept the loss: -P max_error_rate=0.2; or bring the files back and "
                "register the version again, as its predictions stay"
            ),
        ),
        (
            "files that cannot be read now keep the target from serving",
            replace(PARTLY, attempt=replace(TRIED, unreadable=5)),
            Block(
                f"5 images cannot be read from their files now. {STAYS}. Make the files readable "
                "(an empty folder counts as an unmounted disk: remove it if it is not one) "
                "and run again"
            ),
        ),
        ("a limit pauses the roll-out", PARTLY, Pause("a limit of the run was reached")),
        (
            "a limit that is used up allows no scoring",
            replace(MOVED, limit_reached=True),
            Pause("a limit of the run was reached"),
        ),
        (
            "not even by the serving version",
            replace(served(LATER), limit_reached=True),
            Pause("a limit of the run was reached"),
        ),
        ("a stop pauses the roll-out", replace(PARTLY, stopped=True), Pause("stopped")),
        (
            "also if images came meanwhile",
            replace(target(served(LATER, PARTLY), coverage=LATER), stopped=True),
            Pause("stopped"),
        ),
        (
            "a stop after the last image does not keep it from serving",
            replace(COMPLETE, stopped=True),
            Serve(V2, "moved from models:/photos/1"),
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
            Score(V2, "moved from models:/photos/1", quarantine=False),
        ),
        (
            "enough coverage serves",
            Policy(min_coverage=0.5),
            PARTLY,
            Serve(V2, "moved from models:/photos/1"),
        ),
        (
            "too little does not",
            Policy(min_coverage=0.6),
            PARTLY,
            Pause("a limit of the run was reached"),
        ),
        (
            "the serving version is scored whatever coverage is enough",
            Policy(min_coverage=0.5),
            grown(LATER),
            Score(V1, "new images", quarantine=True),
        ),
        (
            "the loss of files can be accepted",
            Policy(max_error_rate=0.2),
            replace(COMPLETE, errors=ErrorCounts(10, 10, 0, 2)),
            Serve(V2, "moved from models:/photos/1"),
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
    assert Serve(V2, "moved from models:/photos/1") == next_step(COMPLETE, POLICY)
    status = VersionStatus(V2, FULL, "serving", "", FULL, has_served=True)
    assert Done() == next_step(Observed(status, status), POLICY)
