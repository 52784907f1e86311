"""The results of the gates as one HTML page."""

import time
from collections.abc import Mapping

from mlproject.gates.checks import GateResults
from mlproject.gates.comparison import Change, Difference
from mlproject.reporting import html
from mlproject.versions.version import Version

SHOWN = 24  # changed images with thumbnails: about 150 kB of page
LABELS = 30  # labels with a row, those with the largest drop first
TRANSITIONS = 20  # pairs of labels with a row


def shown_changes(difference: Difference | None) -> tuple[Change, ...]:
    """The changed images that the page shows."""
    return difference.changes[:SHOWN] if difference else ()


def render(
    pointer: str,
    version: Version,
    serving: Version | None,
    results: GateResults,
    outcome: str,
    paths: Mapping[str, tuple[str, int]],
    thumbnails: Mapping[str, bytes],
) -> str:
    """The page as HTML that loads no other file and calls no server.

    `paths`, as `comparison.image_paths` gives them, and `thumbnails` (JPEG) are by image_id; an
    image may lack either.
    """
    accuracy, difference = results.comparison.accuracy, results.comparison.difference
    return html.render(
        "gates.html.j2",
        thumbnails,
        pointer=pointer,
        checked=version,
        serving=serving,
        results=results,
        outcome=outcome,
        rows=(accuracy.total, *accuracy.labels[:LABELS]) if accuracy and accuracy.total else (),
        transitions=difference.transitions[:TRANSITIONS] if difference else (),
        pictures=[_picture(change, paths) for change in shown_changes(difference)],
        made_at=time.time_ns() // 1000,
    )


def _picture(change: Change, paths: Mapping[str, tuple[str, int]]) -> dict[str, object]:
    """A changed image as the template shows it."""
    image = change.image
    path, _ = paths.get(image.image_id, (None, 0))
    picture = {"image_id": image.image_id, "path": path, "folder": image.label}
    return picture | {"before": change.before, "after": change.after}
