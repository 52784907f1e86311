"""The gates before a pointer: what a version must show before readers may be pointed at it.

Each gives a verdict. What they measure on images is compared with the serving version, on the same
images. Missing predictions are scored through a callback and stay in the table.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from mlflow import MlflowClient

from mlproject.errors import MlprojectError
from mlproject.gates import approvals, comparison
from mlproject.gates.comparison import Accuracy, Answers, Difference, Image
from mlproject.lake import tables
from mlproject.lake.location import Snapshot
from mlproject.scoring import coverage
from mlproject.versions import reference_images, version_files
from mlproject.versions.registry import Version, registered
from mlproject.versions.version_files import Files

OFF, WARN, BLOCK = "off", "warn", "block"
PASSED, NOTED, SKIPPED, REFUSED, WARNED = "passed", "noted", "skipped", "refused", "warned"
# No measurement: a version with other files than were promoted is never scored, and an approval
# is a person's word, which no mode of ours stands in for.
ALWAYS = ("files", "approval")
# Images of a label from which on its accuracy is judged by itself. With fewer, chance alone moves
# it by more than the default max_drop: two standard errors are 11 points at 90 % right.
LABEL_IMAGES = 30
NO_LIMIT = "no limit"


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one gate says."""

    gate: str
    """Its name."""
    state: str
    """`passed`, `refused`, `noted` (a difference that is no fault) or `skipped`."""
    found: str
    """What was found, in words."""
    limit: str
    """What was asked for, in words; empty = there is nothing to choose."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What the gates ask for."""

    sample: int = 500
    """Images on which changes are counted, and labelled ones, at most."""
    min_accuracy: float = 0.0
    """Share of the labelled images that it must tell right, 0..1; 0 = no limit."""
    max_drop: float = 0.1
    """By how much the accuracy, of all and of each label, may fall, 0..1; 1 = no limit. The
    default lets through what training anew, or in another framework, moves by itself, and stops
    a version that gets one image in ten wrong which was right before."""
    max_changed: float = 1.0
    """Share of the sample whose label may change, 0..1; 1 = no limit."""
    require_approval: bool = False
    """Whether a person must have approved the version."""


@dataclass(frozen=True, slots=True)
class Work:
    """What the gates have done for them by their verb, which owns sessions and processes."""

    golden: Callable[[Version], str]
    """What is wrong with a version's answers to the golden images, in words; "" = nothing."""
    score: Callable[[Version, Sequence[str]], None]
    """Scores images, by image_id, with a version, and keeps the answers."""


@dataclass(frozen=True, slots=True)
class Judged:
    """What the gates found."""

    verdicts: tuple[Verdict, ...]
    """One a gate, in the order in which they ran."""
    files: Files | None
    """What the version holds; None = its files cannot be had."""
    images: Snapshot | None
    """The version of `images` that was compared on; None = nothing was compared."""
    accuracy: Accuracy | None
    """On labelled images; None = not measured."""
    difference: Difference | None
    """From the version that readers see; None = there is none, or nothing was compared."""

    @property
    def refused(self) -> list[Verdict]:
        """The gates that said no."""
        return [verdict for verdict in self.verdicts if verdict.state == REFUSED]

    def outcome(self, mode: str) -> str:
        """What it comes to in a mode: `passed`, `warned`, `refused` or `off`."""
        if mode == BLOCK or any(verdict.gate in ALWAYS for verdict in self.refused):
            return REFUSED if self.refused else PASSED
        return OFF if mode == OFF else WARNED if self.refused else PASSED


def judge(
    client: MlflowClient,
    lake: str,
    version: Version,
    before: Version | None,
    work: Work,
    *,
    limits: Limits = Limits(),
    mode: str = BLOCK,
    approved: bool = False,
) -> Judged:
    """Lets a version through the gates; moves nothing and sets no tag.

    Args:
        client: The registry.
        lake: As `lakes.locate` gives it; it need not be there.
        version: The version that is to be pointed at.
        before: The version that readers of the pointer see; None = none.
        work: What the verb does for the gates.
        limits: What is asked for.
        mode: `off` runs only the gates of `ALWAYS`; `warn` and `block` run all.
        approved: Whether who asks approves the version by asking.
    """
    judge = _Judge(client, lake, version, before, work, limits)
    judge.look_at_files()
    if limits.require_approval and judge.files:
        judge.look_at_approval(approved)
    if mode != OFF and judge.files and judge.try_out():
        judge.compare()
    return Judged(
        tuple(judge.verdicts), judge.files, judge.images, judge.accuracy, judge.difference
    )


def percent(share: float) -> str:
    """A share in words, with one decimal, never rounded up to all or down to nothing."""
    near = min(max(abs(share), 0.001), 0.999) if 0 < abs(share) < 1 else abs(share)
    return f"{math.copysign(100 * near, share):.1f} %"


class _Judge:
    """One version at the gates."""

    def __init__(
        self,
        client: MlflowClient,
        lake: str,
        version: Version,
        before: Version | None,
        work: Work,
        limits: Limits,
    ) -> None:
        self.client, self.lake, self.work, self.limits = client, lake, work, limits
        self.version = replace(version, pointer=None)
        self.before = before and replace(before, pointer=None)
        self.verdicts: list[Verdict] = []
        self.files: Files | None = None
        self.images: Snapshot | None = None
        self.accuracy: Accuracy | None = None
        self.difference: Difference | None = None

    def look_at_files(self) -> None:
        """The files can be had, and are those that were promoted once, where they were."""
        limit = "as promoted"
        try:
            files = version_files.read(self.version)
        except MlprojectError as error:
            self._say("files", REFUSED, str(error), limit)
            return
        known = registered(self.client, self.version).tags.get(version_files.DIGEST)
        if known not in (None, files.digest):
            found = f"files changed since promotion: sha256 {files.digest[:12]}, then {known[:12]}"
            self._say("files", REFUSED, found, limit)
            return
        self.files = files
        words = f"sha256 {files.digest[:12]}, {'as before' if known else 'not promoted before'}"
        self._say("files", PASSED, words, limit)

    def look_at_approval(self, approved: bool) -> None:
        """A person has approved these very files."""
        digest = self.files.digest if self.files else ""
        fine, words = approvals.approval(self.client, self.version, digest)
        if approved and not fine:
            fine, words = True, "by who asks for this promotion"
        self._say("approval", PASSED if fine else REFUSED, words, "required")

    def try_out(self) -> bool:
        """It runs here and answers the golden images; whether it does."""
        unmet = self.files.unmet if self.files else []
        self._say(
            "requirements",
            NOTED if unmet else PASSED,
            f"made with {', '.join(unmet)}" if unmet else "all packages as it was made with",
            "",
        )
        wrong = self.work.golden(self.version)
        words = (
            wrong or f"{len(reference_images.reference_images())} images answered as they must be"
        )
        self._say("golden", REFUSED if wrong else PASSED, words, "all")
        return not wrong

    def compare(self) -> None:
        """What it says on images of the lake, beside what readers see."""
        if self.before is None and not self.limits.min_accuracy:
            return
        self.images = tables.newest(self.lake, "images")
        count = self.limits.sample
        chosen = comparison.choose(self.lake, count, self.images) if self.images else ()
        if self.before is None:
            chosen = tuple(image for image in chosen if image.label)
        before = self._answers(self.before, chosen) if self.before else None
        after = self._answers(self.version, chosen)
        if after is None:
            return
        self.accuracy = comparison.accuracy(chosen, after, before)
        self._judge_accuracy(self.accuracy)
        if before is not None:
            self.difference = comparison.difference(chosen, after, before)
            self._judge_drop(self.accuracy)
            self._judge_changes(self.difference)

    def _answers(self, version: Version | None, chosen: Sequence[Image]) -> Answers | None:
        """A version's answers, those that are missing scored; None when the judged one cannot."""
        if version is None:
            return None
        judged = version == self.version
        answers = comparison.answers(self.lake, version, chosen)
        missing = [image.image_id for image in chosen if image.image_id not in answers]
        trouble = ""
        if missing:
            try:
                self.work.score(version, missing)
            except MlprojectError as error:
                trouble = str(error)
            answers = comparison.answers(self.lake, version, chosen)
        if trouble and judged:
            self._say("sample", REFUSED, trouble, "can be scored")
            return None
        left = len(chosen) - len(answers)
        if judged and chosen:
            new = len(missing) - left
            words = f"{len(answers)} images, {new} of them scored now"
            words += f"; {left} cannot be read now" if left else ""
            gone = sum(answer.error in coverage.NO_BYTES for answer in answers.values())
            words += f"; {gone} whose files are gone do not count" if gone else ""
            self._say("sample", NOTED if left else PASSED, words, f"{self.limits.sample} images")
        elif left:
            words = f"{version.uri} has not answered {left} of them"
            self._say("baseline", NOTED, f"{words} ({trouble})" if trouble else words, "")
        return answers

    def _judge_accuracy(self, accuracy: Accuracy) -> None:
        least, total = self.limits.min_accuracy, accuracy.total
        limit = f"at least {100 * least:g} %" if least else NO_LIMIT
        left = sum(accuracy.unknown.values())
        unknown = f"; {left} left out, whose labels no version knows" if left else ""
        if total is None:
            state = REFUSED if least else SKIPPED
            self._say("accuracy", state, f"no labelled image to measure it on{unknown}", limit)
            return
        words = f"{percent(total.accuracy)} of {total.images} labelled images"
        if total.accuracy_before is not None:
            words += f", before {percent(total.accuracy_before)}"
        state = REFUSED if total.accuracy < least else PASSED
        self._say("accuracy", state, words + unknown, limit)

    def _judge_drop(self, accuracy: Accuracy) -> None:
        most, total = self.limits.max_drop, accuracy.total
        if total is None:
            return
        limit = f"at most {100 * most:g} %" if most < 1 else NO_LIMIT
        state = REFUSED if total.drop > most else PASSED
        self._say("drop", state, f"{percent(max(0, total.drop))} of all images lost", limit)
        judged = [right for right in accuracy.labels if right.images >= LABEL_IMAGES]
        if not judged:
            self._say("labels", SKIPPED, f"no label has {LABEL_IMAGES} images", limit)
            return
        worst = judged[0]
        words = f"{percent(max(0, worst.drop))} of a label lost at most"
        if worst.drop > 0:
            words += f": {worst.label!r}, {worst.right} of {worst.images}, before {worst.before}"
        self._say("labels", REFUSED if worst.drop > most else PASSED, words, limit)

    def _judge_changes(self, difference: Difference) -> None:
        most = self.limits.max_changed
        limit = f"at most {100 * most:g} %" if most < 1 else NO_LIMIT
        if not difference.images:
            state = REFUSED if most < 1 else SKIPPED
            self._say("changed", state, "no image that both have answered", limit)
            return
        words = (
            f"{len(difference.changes)} of {difference.images} images ({percent(difference.share)})"
        )
        self._say("changed", REFUSED if difference.share > most else PASSED, words, limit)

    def _say(self, gate: str, state: str, found: str, limit: str) -> None:
        self.verdicts.append(Verdict(gate, state, found, limit))
