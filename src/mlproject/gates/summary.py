"""What the gates found, as figures, as tables, and as facts for JSON."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from mlproject.gates.checks import Judged, percent
from mlproject.gates.comparison import Accuracy, Difference, Right

ROWS = 10  # labels, and pairs of labels, that are printed; the page tells more

Table = tuple[Sequence[str], list[Sequence[object]]]


def changed(
    difference: Difference, places: Mapping[str, tuple[str, int]]
) -> dict[str, list[object]]:
    """The changed images, all of them, as columns; `places` as `comparing.places` gives them."""
    names = ("image_id", "path", "label", "before", "score_before", "after", "score_after")
    columns: dict[str, list[object]] = {name: [] for name in names}
    for change in difference.changes:
        image, before, after = change.image, change.before, change.after
        path = places[image.image_id][0] if image.image_id in places else None
        row = (image.image_id, path, image.label, before.words, before.score)
        for column, value in zip(columns.values(), (*row, after.words, after.score), strict=True):
            column.append(value)
    return columns


def figures(judged: Judged) -> dict[str, float]:
    """What was measured, as metrics of a run."""
    found: dict[str, float | None] = {}
    total = judged.accuracy.total if judged.accuracy else None
    if total:
        found |= {"labelled_images": total.images, "accuracy": total.accuracy}
        found |= {"accuracy_before": total.accuracy_before}
        if total.before is not None:
            found |= {"accuracy_drop": total.drop}
    difference = judged.difference
    if difference:
        found |= {"compared_images": difference.images, "changed": len(difference.changes)}
        found |= {"changed_share": difference.share, "mean_score": difference.score}
        found |= {"mean_score_before": difference.score_before}
        found |= {"mean_score_moved": difference.score_moved}
    return {name: value for name, value in found.items() if value is not None}


def tables(judged: Judged) -> Iterator[Table]:
    """Column names and rows, for people: the gates, the labels that lost most, what changed."""
    rows: list[Sequence[object]] = [
        (verdict.gate, verdict.state, verdict.found, verdict.limit) for verdict in judged.verdicts
    ]
    yield ("gate", "verdict", "found", "limit"), rows
    accuracy, difference = judged.accuracy, judged.difference
    if accuracy and accuracy.labels:
        rows = [_row(right) for right in accuracy.labels[:ROWS]]
        yield ("label", "images ", "right before ", "right ", "lost "), rows
    if difference and difference.changes:
        rows = list(difference.flows[:ROWS])
        yield ("said before", "would say", "images "), rows


def facts(judged: Judged) -> dict[str, Any]:
    """All of it as words and numbers that JSON can hold."""
    accuracy, difference = judged.accuracy, judged.difference
    return {
        "gates": [
            {"gate": said.gate, "verdict": said.state, "found": said.found, "limit": said.limit}
            for said in judged.verdicts
        ],
        "accuracy": _accuracy(accuracy) if accuracy else None,
        "changes": _changes(difference) if difference else None,
    }


def _row(right: Right) -> Sequence[object]:
    before = "" if right.accuracy_before is None else percent(right.accuracy_before)
    lost = percent(right.drop) if right.before is not None else ""
    return right.label, right.images, before, percent(right.accuracy), lost


def _accuracy(accuracy: Accuracy) -> dict[str, Any]:
    return {
        "total": _right(accuracy.total) if accuracy.total else None,
        "labels": [_right(right) for right in accuracy.labels],
        "unknown": dict(accuracy.unknown),
    }


def _right(right: Right) -> dict[str, Any]:
    found = asdict(right) | {"accuracy": right.accuracy, "drop": right.drop}
    return found | {"accuracy_before": right.accuracy_before}


def _changes(difference: Difference) -> dict[str, Any]:
    flows = [
        {"before": then, "after": now, "images": count} for then, now, count in difference.flows
    ]
    return {
        "images": difference.images,
        "changed": len(difference.changes),
        "share": difference.share,
        "score_before": difference.score_before,
        "score": difference.score,
        "score_moved": difference.score_moved,
        "flows": flows,
    }
