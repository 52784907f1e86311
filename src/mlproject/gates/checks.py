"""Checks of a version before an alias or stage is moved to it: measures, then gives verdicts.

The version is compared with the serving version on the same images of the lake. Missing predictions
are scored and stay in the table.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mlflow import MlflowClient

from mlproject.errors import MachineError, MlprojectError
from mlproject.gates import approvals, comparison
from mlproject.gates.approvals import Approval
from mlproject.gates.comparison import Image, Predictions
from mlproject.gates.verdicts import (
    AS_PROMOTED,
    PASSED,
    REFUSED,
    Comparison,
    Limits,
    Measurements,
    Scored,
    Verdict,
    verdicts,
)
from mlproject.lake import snapshots
from mlproject.scoring import coverage
from mlproject.versions import version_files
from mlproject.versions.registry import Version, registered
from mlproject.versions.version_files import Files

OFF, BLOCK, WARNED = "off", "block", "warned"
# Gates that every mode runs: a version with other files than were promoted is never scored, and no
# mode stands in for the approval of a person.
ALWAYS = ("files", "approval")

# Scores images, by image_id, with a version, and appends the predictions.
Score = Callable[[Version, Sequence[str]], None]


@dataclass(frozen=True, slots=True)
class GateResults:
    """The verdicts of the gates and what they were given on."""

    verdicts: tuple[Verdict, ...]
    """One for each gate, in the order in which they ran."""
    files: Files | None
    """The files of the version; None = they cannot be read."""
    comparison: Comparison
    """What was measured on images of the lake."""

    @property
    def refused(self) -> list[Verdict]:
        """The verdicts that refuse the version."""
        return [verdict for verdict in self.verdicts if verdict.state == REFUSED]

    def outcome(self, mode: str) -> str:
        """The outcome in a mode: `passed`, `warned`, `refused` or `off`."""
        if mode == BLOCK or any(verdict.gate in ALWAYS for verdict in self.refused):
            return REFUSED if self.refused else PASSED
        return OFF if mode == OFF else WARNED if self.refused else PASSED


def check_version(
    client: MlflowClient,
    lake: str,
    candidate: Version,
    serving: Version | None,
    *,
    reference_fault: Callable[[Version], str],
    score: Score,
    limits: Limits,
    mode: str,
    approved: bool,
) -> GateResults:
    """The results of all gates; moves no alias and sets no tag.

    Args:
        client: The registry.
        lake: As `location.locate` gives it; it need not exist.
        candidate: The version that is checked, without a pointer.
        serving: The serving version of the alias or stage, without it; None = there is none.
        reference_fault: What is wrong with a version's results on the reference images; "" =
            nothing.
        score: Scores the images that a version has not predicted.
        limits: The limits of the gates.
        mode: `off` runs only the gates of `ALWAYS`; `warn` and `block` run all.
        approved: Whether the user approves the version with this command.
    """
    try:
        files = version_files.read(candidate)
    except MachineError:
        raise  # it says nothing of the version
    except MlprojectError as error:
        unreadable = Verdict("files", REFUSED, str(error), AS_PROMOTED)
        return GateResults((unreadable,), None, Comparison())
    known = registered(client, candidate).tags.get(version_files.DIGEST)
    approval, fault, compared = None, None, Comparison()
    if limits.require_approval:
        approval = approvals.read_approval(client, candidate, files.digest)
        if approved and not approval.approved:
            approval = Approval(True, "with this promotion")
    if mode != OFF:
        fault = reference_fault(candidate)
        if not fault and (serving or limits.min_accuracy):
            compared = _compare(lake, candidate, serving, score, limits.sample)
    measured = Measurements(files, known, approval, fault, compared)
    return GateResults(tuple(verdicts(measured, limits)), files, compared)


def _compare(
    lake: str, candidate: Version, serving: Version | None, score: Score, sample: int
) -> Comparison:
    """The predictions of both versions for the same images; missing ones are scored."""
    snapshot = snapshots.newest(lake, "images")
    images = comparison.sample_images(lake, sample, snapshot) if snapshot else ()
    if serving is None:
        images = tuple(image for image in images if image.label)
    before, scored_before = None, None
    if serving is not None:
        before, scored_before = _score_missing(lake, serving, images, score)
    after, scored = _score_missing(lake, candidate, images, score)
    if scored.failure:
        return Comparison(snapshot, scored, scored_before)
    return Comparison(
        snapshot,
        scored,
        scored_before,
        comparison.accuracy(images, after, before),
        None if before is None else comparison.difference(images, after, before),
    )


def _score_missing(
    lake: str, version: Version, images: Sequence[Image], score: Score
) -> tuple[Predictions, Scored]:
    """The predictions of a version for images, after the missing ones were scored."""
    predictions = comparison.read_predictions(lake, version, images)
    missing = [image.image_id for image in images if image.image_id not in predictions]
    failure = ""
    if missing:
        try:
            score(version, missing)
        except MachineError:
            raise  # it says nothing of the version
        except MlprojectError as error:
            failure = str(error)
        predictions = comparison.read_predictions(lake, version, images)
    scored_now = sum(image_id in predictions for image_id in missing)
    without_bytes = sum(found.error in coverage.NO_BYTES for found in predictions.values())
    scored = Scored(version.uri, len(images), len(predictions), scored_now, without_bytes, failure)
    return predictions, scored
