"""What a roll-out does next: a pure function of what was observed; it reads and writes nothing.

The rules, with their reasons, are decision 12 in docs/decisions.
"""

import math
from dataclasses import dataclass

from mlproject.errors import MlprojectError, RefusedError, UserError
from mlproject.rollout.ledger import FAILED, SCORING, SERVING, SUPERSEDED, Entry
from mlproject.scoring.coverage import NONE_STORED, Coverage, ErrorCounts, StoredErrors
from mlproject.versions.version import Version

NO_ERRORS = ErrorCounts(0, 0, 0, 0)
Change = tuple[Version, str, str]  # a version, its new state, and the reason


@dataclass(frozen=True, slots=True)
class Policy:
    """When a version may become the serving version."""

    min_coverage: float = 1.0
    """Share of the images that it must have predicted, 0..1."""
    max_error_rate: float = 0.05
    """Share of the images readable before for which it may have an error, 0..1."""
    retry: bool = False
    """Whether versions that failed before are tried again."""
    retry_errors: tuple[str, ...] = ()
    """Error codes of images that are scored again, and whose rows are replaced."""


@dataclass(frozen=True, slots=True)
class VersionStatus:
    """One version at an alias or stage: its images, and its state in `rollouts`."""

    version: Version
    """The version."""
    coverage: Coverage
    """How much of the images it has predicted."""
    last: Entry | None = None
    """Its last row, which has its state; None = it has no row."""
    has_served: bool = False
    """Whether it is the serving version, or was before."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """The last scoring of a reconciliation."""

    version: Version
    """The version that predicted."""
    images_version: int
    """Delta version of `images` before it."""
    unreadable: int = 0
    """Images whose files could not be read now."""
    is_target: bool = True
    """Whether the alias named the version; False = it was scored as the serving version."""
    failure: str = ""
    """Why it could not be scored; empty = it could."""


@dataclass(frozen=True, slots=True)
class Observed:
    """All that the decision depends on, read at one moment."""

    target: VersionStatus
    """The version that the alias names."""
    serving: VersionStatus | None = None
    """The serving version, which may be the target; None = none yet."""
    errors: ErrorCounts = NO_ERRORS
    """Errors of the target on images that the serving version could predict."""
    stored: StoredErrors = NONE_STORED
    """Errors of the target that can change; those of the policy's codes where it has some."""
    retried: str = ""
    """The errors that this reconciliation has scored again, with their times; empty = none."""
    abandoned: tuple[Version, ...] = ()
    """Versions in state `scoring` that the alias no longer names."""
    attempt: Attempt | None = None
    """The last scoring of this reconciliation; None = none yet."""
    stopped: bool = False
    """Whether the command is to end."""
    limit_reached: bool = False
    """Whether the limits of the run allow no more scoring."""

    @property
    def serves(self) -> bool:
        """Whether the target is the serving version."""
        return self.serving is not None and self.serving.version == self.target.version

    @property
    def may_score(self) -> bool:
        """Whether anything may be scored now."""
        return not (self.stopped or self.limit_reached)

    @property
    def was_scored(self) -> bool:
        """Whether the target had its turn, and no images came since that it has not predicted."""
        if self.attempt is None or self.attempt.version != self.target.version:
            return False
        same_images = self.attempt.images_version == self.target.coverage.images_version
        return same_images or self.stopped or not self.target.coverage.missing


@dataclass(frozen=True, slots=True)
class Score:
    """Score what a version has not predicted, after recording that it is being scored."""

    version: Version
    reason: str
    retry: tuple[str, ...] = ()
    """Error codes of the images that are scored again instead."""
    complete: Coverage | None = None
    """Earlier counts by which it had predicted all images: only later ones are searched."""


@dataclass(frozen=True, slots=True)
class Record:
    """Record new states of versions in one commit; a new state of the target ends it."""

    changes: tuple[Change, ...]


@dataclass(frozen=True, slots=True)
class Raise:
    """End with an error; nothing is recorded."""

    error: type[MlprojectError]
    """RefusedError; or UserError, as a person must act first."""
    message: str


@dataclass(frozen=True, slots=True)
class Done:
    """End: the target serves, and there is nothing to record."""


Step = Score | Record | Raise | Done


def next_step(seen: Observed, policy: Policy) -> Step:
    """The step to take now; the caller applies it and observes again, until a step ends it."""
    return (
        _failure(seen)
        or _abandoned(seen)
        or _step_for_serving(seen, policy)
        or _step_for_errors(seen, policy)
        or _step_for_target(seen, policy)
        or _excess_errors(seen, policy)
        or _incomplete(seen, policy)
        or _complete(seen)
    )


def cannot_recover(errors: ErrorCounts, policy: Policy) -> bool:
    """Whether a version has too many errors even if it predicts all other images without one."""
    return errors.errors > policy.max_error_rate * errors.readable


def advice(stored: StoredErrors) -> str:
    """The option that scores images with an error again; empty = none has one that can change."""
    return f"-P retry=errors, which scores {stored.images} images again" if stored.images else ""


def serving_stays(seen: Observed) -> str:
    """A sentence: which version serves."""
    if seen.serving is None:
        return "No version serves yet"
    return f"The serving version stays {seen.serving.version.uri}"


def _failure(seen: Observed) -> Step | None:
    """What follows when the version that the alias named failed just now."""
    attempt, serving = seen.attempt, seen.serving
    if attempt is None or not attempt.failure or not attempt.is_target:
        return None
    if serving and serving.version == attempt.version:
        message = f"{attempt.version.uri} failed: {attempt.failure}. {serving_stays(seen)}"
        return Raise(RefusedError, message)
    return Record(((attempt.version, FAILED, attempt.failure),))


def _abandoned(seen: Observed) -> Step | None:
    if not seen.abandoned:
        return None
    reason = f"moved to {seen.target.version.uri}"
    return Record(tuple((version, SUPERSEDED, reason) for version in seen.abandoned))


def _step_for_serving(seen: Observed, policy: Policy) -> Step | None:
    """Keeps the serving version up to date, unless the target is complete sooner.

    It has one turn, then the target has one: else images that keep coming would hold the target up.
    """
    serving, target = seen.serving, seen.target
    if serving is None or seen.serves or seen.was_scored:
        return None
    if seen.attempt and seen.attempt.version == serving.version:
        if serving.coverage.missing or not _is_news(serving):
            return None
        return Record(((serving.version, SERVING, "new images"),))
    failed = _failed_before(target, policy)
    is_sooner = not failed and target.coverage.missing <= serving.coverage.missing
    if is_sooner or not serving.coverage.missing or not seen.may_score:
        return None
    return Score(serving.version, "new images")


def _step_for_errors(seen: Observed, policy: Policy) -> Step | None:
    """Scores again, once, the images for which the target has an error of the policy's codes."""
    if not policy.retry_errors or not seen.stored.images or seen.retried or not seen.may_score:
        return None
    reason = f"retries errors ({seen.stored.summary()})"
    return Score(seen.target.version, reason, retry=policy.retry_errors)


def _step_for_target(seen: Observed, policy: Policy) -> Step | None:
    """Scores the target, unless it failed before."""
    target, attempt = seen.target, seen.attempt
    failed = _failed_before(target, policy)
    if failed:
        retry = advice(seen.stored) or "-P retry=true"
        message = (
            f"{target.version.uri} failed before ({failed.reason}). {serving_stays(seen)}. "
            f"Move the alias to another version, or run again with {retry}"
        )
        trouble = attempt.failure if attempt else ""  # of the serving version
        return (
            Raise(UserError, f"{message}. {trouble}") if trouble else Raise(RefusedError, message)
        )
    if target.coverage.missing and seen.may_score and not seen.was_scored:
        return Score(target.version, _moved_from(seen))
    return None


def _excess_errors(seen: Observed, policy: Policy) -> Step | None:
    """Keeps the serving version where the target has too many errors or lost files."""
    errors, most = seen.errors, policy.max_error_rate
    if seen.target.has_served:  # the way back to it is always open
        return None
    if errors.rate > most:
        reason = (
            f"errors on {errors.errors} of {errors.predicted} images that were readable before, "
            f"more than max_error_rate={most:g}"
        )
        return Record(((seen.target.version, FAILED, reason),))
    if errors.lost_rate > most:  # no fault of the version
        return Raise(
            UserError,
            f"the files of {errors.lost} of {errors.predicted} images that were readable before "
            f"are gone or changed. {serving_stays(seen)}. Accept the loss: "
            f"-P max_error_rate={math.ceil(errors.lost_rate * 100) / 100:g}; or bring the files "
            "back and run again with -P retry=gone,changed",
        )
    return None


def _incomplete(seen: Observed, policy: Policy) -> Step | None:
    """Ends where images are missing that cannot be scored now."""
    if seen.target.coverage.share >= (1 if seen.serves else policy.min_coverage):
        return None
    unreadable = seen.attempt.unreadable if seen.attempt and seen.was_scored else 0
    if unreadable:
        return Raise(
            UserError,
            f"{unreadable} images cannot be read from their files now. {serving_stays(seen)}. "
            "Make the files readable (an empty folder counts as an unmounted disk: remove it "
            "if it is not one) and run again",
        )
    reason = "stopped" if seen.stopped else "a limit of the run was reached"
    return Done() if seen.serves else Record(((seen.target.version, SCORING, reason),))


def _complete(seen: Observed) -> Step:
    """Makes the target the serving version, or records its new coverage."""
    if seen.serves and not _is_news(seen.target):
        return Done()
    version = seen.target.version
    serves = (version, SERVING, _moved_from(seen))
    if seen.serving is None or seen.serves:
        return Record((serves,))
    return Record(((seen.serving.version, SUPERSEDED, f"moved to {version.uri}"), serves))


def _failed_before(target: VersionStatus, policy: Policy) -> Entry | None:
    """The row of a version that failed before and is not tried again."""
    last = target.last
    return last if last and last.state == FAILED and not policy.retry else None


def _is_news(status: VersionStatus) -> bool:
    """Whether a version's coverage differs from that in its last row."""
    recorded = status.last.covered if status.last else None
    return recorded is None or status.coverage.counts != recorded.counts


def _moved_from(seen: Observed) -> str:
    if seen.serving is None:
        return "the first version"
    return seen.retried or "new images" if seen.serves else f"moved from {seen.serving.version.uri}"
