"""What the gates found, as one HTML page."""

from collections.abc import Mapping
from dataclasses import dataclass

from mlproject.gates.checks import Judged
from mlproject.gates.comparison import Answer, Change, Difference, Right
from mlproject.reporting import html
from mlproject.versions.registry import Version

SHOWN = 24  # changed images with pictures: about 150 kB of page
LABELS = 30  # labels with a row of their own, those that lost most first
FLOWS = 20  # pairs of labels with a row of their own

Places = Mapping[str, tuple[str, int]]


@dataclass(frozen=True, slots=True)
class Picture:
    """One changed image as the page shows it."""

    image_id: str
    """Sha256 of the content."""
    path: str | None
    """One of the files with that content; None = it is there no more."""
    folder: str | None
    """Its label; None = it has none."""
    before: Answer
    """What readers see."""
    after: Answer
    """What they would see."""


@dataclass(frozen=True, slots=True)
class Facts:
    """All that the page tells."""

    pointer: str
    """The pointer as a URI."""
    version: Version
    """The version at the gates."""
    before: Version | None
    """The version that readers see; None = none."""
    outcome: str
    """As `Judged.outcome` gives it."""
    judged: Judged
    """What the gates found."""
    places: Places
    """As `comparing.places` gives them, for the changed images."""
    thumbnails: Mapping[str, bytes]
    """image_id -> JPEG, for those of `shown` that can be decoded."""
    made_at: int
    """When they were found, microseconds since 1970."""

    @property
    def rows(self) -> tuple[Right, ...]:
        """How right both are on all labelled images, and on those of each label that has a row."""
        accuracy = self.judged.accuracy
        return (accuracy.total, *accuracy.labels[:LABELS]) if accuracy and accuracy.total else ()

    @property
    def flows(self) -> tuple[tuple[str, str, int], ...]:
        """The pairs of labels that have a row."""
        return self.judged.difference.flows[:FLOWS] if self.judged.difference else ()

    @property
    def pictures(self) -> list[Picture]:
        """The changed images that are shown."""
        shown_changes = shown(self.judged.difference)
        return [_picture(change, self.places) for change in shown_changes]


def shown(difference: Difference | None) -> tuple[Change, ...]:
    """The changed images that the page shows."""
    return difference.changes[:SHOWN] if difference else ()


def render(facts: Facts) -> str:
    """The page, which asks nothing of any other file or server."""
    return html.render("gates.html.j2", facts.thumbnails, facts=facts)


def _picture(change: Change, places: Places) -> Picture:
    image = change.image
    path, _ = places.get(image.image_id, (None, 0))
    return Picture(image.image_id, path, image.label, change.before, change.after)
