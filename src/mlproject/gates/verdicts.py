"""Verdicts of the gates: pure functions of what was measured and of the limits."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

from mlproject.gates.approvals import Approval
from mlproject.gates.comparison import Accuracy, Difference, LabelAccuracy
from mlproject.lake.snapshots import Snapshot
from mlproject.versions.version_files import Files

PASSED, NOTED, SKIPPED, REFUSED = "passed", "noted", "skipped", "refused"
# Images of a label from which on its accuracy has a limit. With fewer, chance alone moves it by
# more than the default max_drop: two standard errors are 11 points at an accuracy of 90 %.
LABEL_IMAGES = 30
NO_LIMIT, AS_PROMOTED = "no limit", "as promoted"


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of the gates."""

    sample: int = 500
    """Images on which changes are counted, and labelled images, at most."""
    min_accuracy: float = 0.0
    """Lowest accuracy on the labelled images, 0..1; 0 = no limit."""
    max_drop: float = 0.1
    """Largest drop of the accuracy, on all images and on each label, 0..1; 1 = no limit. The
    default allows what training again, or in another framework, moves by itself, and refuses a
    version that loses one correct prediction in ten."""
    max_changed: float = 1.0
    """Largest share of the sample whose label may change, 0..1; 1 = no limit."""
    require_approval: bool = False
    """Whether a person must have approved the version."""


@dataclass(frozen=True, slots=True)
class Scored:
    """The predictions of one version for the images that versions are compared on."""

    version_uri: str
    """The version."""
    images: int
    """Images that were chosen."""
    predictions: int
    """Images among them that have a prediction."""
    scored_now: int
    """Predictions that the gates had to make."""
    without_bytes: int
    """Predictions that are an error because the file is gone or changed."""
    failure: str
    """Why images could not be scored; "" = scoring did not fail."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """What was measured on images of the lake; the defaults = nothing was compared."""

    images: Snapshot | None = None
    """The snapshot of `images`; None = there is no such table, or nothing was compared."""
    candidate: Scored | None = None
    """The predictions of the version that is checked."""
    serving: Scored | None = None
    """The predictions of the serving version; None = there is no serving version."""
    accuracy: Accuracy | None = None
    """On labelled images; None = not measured."""
    difference: Difference | None = None
    """From the serving version; None = there is none, or nothing was compared."""


@dataclass(frozen=True, slots=True)
class Measurements:
    """What was measured of a version; what was not measured gets no verdict."""

    files: Files
    """Its files."""
    promoted_digest: str | None = None
    """The digest of the files that were promoted first; None = it was never promoted."""
    approval: Approval | None = None
    """Its approval; None = not required."""
    reference_fault: str | None = None
    """What is wrong with its results on the reference images; "" = nothing; None = not tried."""
    comparison: Comparison = Comparison()
    """Its predictions for images of the lake."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The verdict of one gate."""

    gate: str
    """The name of the gate."""
    state: str
    """`passed`, `refused`, `noted` (a difference that refuses nothing) or `skipped`."""
    found: str
    """What was measured, as text."""
    limit: str
    """The limit, as text; "" = the gate has none."""


def verdicts(measured: Measurements, limits: Limits) -> Iterator[Verdict]:
    """One verdict for each gate that was measured, in the order of the measurements."""
    yield files_verdict(measured)
    if measured.approval is not None:
        state = PASSED if measured.approval.approved else REFUSED
        yield Verdict("approval", state, measured.approval.reason, "required")
    if measured.reference_fault is not None:
        unmet = measured.files.unmet
        found = f"registered with {', '.join(unmet)}" if unmet else "all packages as registered"
        yield Verdict("requirements", NOTED if unmet else PASSED, found, "")
        state = REFUSED if measured.reference_fault else PASSED
        found = measured.reference_fault or "all reference images give the expected results"
        yield Verdict("reference_images", state, found, "all")
    compared = measured.comparison
    if compared.serving and compared.serving.predictions < compared.serving.images:
        yield serving_verdict(compared.serving)
    if compared.candidate and (compared.candidate.images or compared.candidate.failure):
        yield sample_verdict(compared.candidate, limits)
    if compared.accuracy is not None:
        yield accuracy_verdict(compared.accuracy, limits)
        if compared.serving and compared.accuracy.total:
            yield drop_verdict(compared.accuracy.total, limits)
            yield labels_verdict(compared.accuracy, limits)
    if compared.difference is not None:
        yield changed_verdict(compared.difference, limits)


def files_verdict(measured: Measurements) -> Verdict:
    """The files are those that were promoted first."""
    digest, known = measured.files.digest, measured.promoted_digest
    found = f"sha256 {digest[:12]}, {'as promoted' if known else 'not promoted before'}"
    if known in (None, digest):
        return Verdict("files", PASSED, found, AS_PROMOTED)
    found = f"files changed since promotion: sha256 {digest[:12]}, was {known[:12]}"
    return Verdict("files", REFUSED, found, AS_PROMOTED)


def sample_verdict(scored: Scored, limits: Limits) -> Verdict:
    """The version can score the images that versions are compared on."""
    if scored.failure:
        return Verdict("sample", REFUSED, scored.failure, "can be scored")
    missing = scored.images - scored.predictions
    found = f"{scored.predictions} images, {scored.scored_now} of them scored now"
    found += f"; {missing} cannot be read now" if missing else ""
    if scored.without_bytes:
        found += f"; {scored.without_bytes} whose files are gone do not count"
    return Verdict("sample", NOTED if missing else PASSED, found, f"{limits.sample} images")


def serving_verdict(scored: Scored) -> Verdict:
    """The serving version lacks predictions for some of the images."""
    missing = scored.images - scored.predictions
    found = f"{scored.version_uri} has no prediction for {missing} images"
    return Verdict(
        "baseline", NOTED, f"{found} ({scored.failure})" if scored.failure else found, ""
    )


def accuracy_verdict(accuracy: Accuracy, limits: Limits) -> Verdict:
    """The accuracy on the labelled images is high enough."""
    lowest, total = limits.min_accuracy, accuracy.total
    limit = f"at least {100 * lowest:g} %" if lowest else NO_LIMIT
    unknown = sum(accuracy.unknown.values())
    left_out = f"; {unknown} left out, no version predicts their labels" if unknown else ""
    if total is None:
        state = REFUSED if lowest else SKIPPED
        return Verdict("accuracy", state, f"no labelled image to measure it on{left_out}", limit)
    found = f"{percent(total.accuracy)} of {total.images} labelled images"
    if total.accuracy_before is not None:
        found += f", before {percent(total.accuracy_before)}"
    state = REFUSED if total.accuracy < lowest else PASSED
    return Verdict("accuracy", state, found + left_out, limit)


def drop_verdict(total: LabelAccuracy, limits: Limits) -> Verdict:
    """The accuracy on all labelled images does not drop too far."""
    found = f"accuracy on all images drops by {percent(max(0, total.drop))}"
    state = REFUSED if total.drop > limits.max_drop else PASSED
    return Verdict("drop", state, found, _at_most(limits.max_drop))


def labels_verdict(accuracy: Accuracy, limits: Limits) -> Verdict:
    """The accuracy on no label with enough images drops too far."""
    limit = _at_most(limits.max_drop)
    frequent = [found for found in accuracy.labels if found.images >= LABEL_IMAGES]
    if not frequent:
        return Verdict("labels", SKIPPED, f"no label has {LABEL_IMAGES} images", limit)
    worst = frequent[0]  # the largest drop comes first
    found = f"largest drop of a label: {percent(max(0, worst.drop))}"
    if worst.drop > 0:
        found += f", {worst.label!r}: {worst.correct} of {worst.images}"
        found += f" correct, before {worst.correct_before}"
    return Verdict("labels", REFUSED if worst.drop > limits.max_drop else PASSED, found, limit)


def changed_verdict(difference: Difference, limits: Limits) -> Verdict:
    """The labels of the sample do not change too often."""
    limit = _at_most(limits.max_changed)
    if not difference.images:
        state = REFUSED if limits.max_changed < 1 else SKIPPED
        return Verdict("changed", state, "no image has a prediction of both versions", limit)
    changed = f"{len(difference.changes)} of {difference.images} images"
    state = REFUSED if difference.share > limits.max_changed else PASSED
    return Verdict("changed", state, f"{changed} ({percent(difference.share)})", limit)


def percent(share: float) -> str:
    """A share as text with one decimal, never rounded up to all or down to nothing."""
    near = min(max(abs(share), 0.001), 0.999) if 0 < abs(share) < 1 else abs(share)
    return f"{math.copysign(100 * near, share):.1f} %"


def _at_most(share: float) -> str:
    return f"at most {100 * share:g} %" if share < 1 else NO_LIMIT
