"""The results of the gates as one HTML page."""

from collections.abc import Mapping
from dataclasses import dataclass

from mlproject.gates.checks import GateResults
from mlproject.gates.comparison import Change, Difference, LabelAccuracy, Prediction
from mlproject.reporting import html
from mlproject.versions.registry import Version

SHOWN = 24  # changed images with thumbnails: about 150 kB of page
LABELS = 30  # labels with a row, those with the largest drop first
TRANSITIONS = 20  # pairs of labels with a row

Paths = Mapping[str, tuple[str, int]]


@dataclass(frozen=True, slots=True)
class ChangedImage:
    """One changed image as the page shows it."""

    image_id: str
    """Sha256 of the content."""
    path: str | None
    """One of the files with that content; None = the table has no such file any more."""
    folder: str | None
    """Its label; None = it has none."""
    before: Prediction
    """The prediction of the serving version."""
    after: Prediction
    """The prediction of the version that is checked."""


@dataclass(frozen=True, slots=True)
class GatePage:
    """The data of the page."""

    pointer: str
    """The alias or stage as a URI."""
    version: Version
    """The version that is checked."""
    before: Version | None
    """The serving version; None = none."""
    outcome: str
    """As `GateResults.outcome` gives it."""
    results: GateResults
    """The results of the gates."""
    paths: Paths
    """As `comparison.image_paths` gives them, for the changed images."""
    thumbnails: Mapping[str, bytes]
    """image_id -> JPEG, for those of `shown_changes` that can be decoded."""
    made_at: int
    """When the gates ran, microseconds since 1970."""

    @property
    def rows(self) -> tuple[LabelAccuracy, ...]:
        """The accuracy on all labelled images, and on those of each label that has a row."""
        accuracy = self.results.comparison.accuracy
        return (accuracy.total, *accuracy.labels[:LABELS]) if accuracy and accuracy.total else ()

    @property
    def transitions(self) -> tuple[tuple[str, str, int], ...]:
        """The pairs of labels that have a row."""
        difference = self.results.comparison.difference
        return difference.transitions[:TRANSITIONS] if difference else ()

    @property
    def pictures(self) -> list[ChangedImage]:
        """The changed images that are shown."""
        changes = shown_changes(self.results.comparison.difference)
        return [_changed_image(change, self.paths) for change in changes]


def shown_changes(difference: Difference | None) -> tuple[Change, ...]:
    """The changed images that the page shows."""
    return difference.changes[:SHOWN] if difference else ()


def render(page: GatePage) -> str:
    """The page as HTML that loads no other file and calls no server."""
    return html.render("gates.html.j2", page.thumbnails, page=page)


def _changed_image(change: Change, paths: Paths) -> ChangedImage:
    image = change.image
    path, _ = paths.get(image.image_id, (None, 0))
    return ChangedImage(image.image_id, path, image.label, change.before, change.after)
