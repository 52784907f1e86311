"""The results of the gates as metrics, as tables to print, and as values for JSON."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pandas as pd

from mlproject.gates.checks import GateResults
from mlproject.gates.comparison import Difference, LabelAccuracy
from mlproject.gates.verdicts import percent

ROWS = 10  # labels, and pairs of labels, that are printed; the page shows more

Table = tuple[Sequence[str], list[Sequence[object]]]


def changed_images(difference: Difference, paths: Mapping[str, tuple[str, int]]) -> pd.DataFrame:
    """A row for each changed image; `paths` as `comparison.image_paths` gives them."""
    columns = ["image_id", "path", "label", "before", "score_before", "after", "score_after"]
    rows = []
    for change in difference.changes:
        image, before, after = change.image, change.before, change.after
        path, _ = paths.get(image.image_id, (None, 0))
        row = (image.image_id, path, image.label, before.text, before.score)
        rows.append((*row, after.text, after.score))
    return pd.DataFrame(rows, columns=columns)


def metrics(results: GateResults) -> dict[str, float]:
    """What was measured, as metrics of an MLflow run."""
    found: dict[str, float | None] = {}
    accuracy, difference = results.comparison.accuracy, results.comparison.difference
    total = accuracy.total if accuracy else None
    if total:
        found |= {"labelled_images": total.images, "accuracy": total.accuracy}
        found |= {"accuracy_before": total.accuracy_before}
        if total.correct_before is not None:
            found |= {"accuracy_drop": total.drop}
    if difference:
        found |= {"compared_images": difference.images, "changed": len(difference.changes)}
        found |= {"changed_share": difference.share, "mean_score": difference.score}
        found |= {"mean_score_before": difference.score_before}
        found |= {"mean_score_moved": difference.score_moved}
    return {name: value for name, value in found.items() if value is not None}


def tables(results: GateResults) -> Iterator[Table]:
    """Column names and rows to print: the gates, the largest drops of labels, the changes."""
    rows: list[Sequence[object]] = [
        (verdict.gate, verdict.state, verdict.found, verdict.limit) for verdict in results.verdicts
    ]
    yield ("gate", "verdict", "found", "limit"), rows
    accuracy, difference = results.comparison.accuracy, results.comparison.difference
    if accuracy and accuracy.labels:
        rows = [_row(found) for found in accuracy.labels[:ROWS]]
        yield ("label", "images ", "accuracy before ", "accuracy ", "drop "), rows
    if difference and difference.changes:
        rows = list(difference.transitions[:ROWS])
        yield ("label before", "label after", "images "), rows


def json_values(results: GateResults) -> dict[str, Any]:
    """The verdicts and what was measured, as values that JSON can hold."""
    accuracy, difference = results.comparison.accuracy, results.comparison.difference
    return {
        "gates": [
            {"gate": found.gate, "verdict": found.state, "found": found.found, "limit": found.limit}
            for found in results.verdicts
        ],
        "accuracy": {
            "total": _label_accuracy(accuracy.total) if accuracy.total else None,
            "labels": [_label_accuracy(found) for found in accuracy.labels],
            "unknown": dict(accuracy.unknown),
        }
        if accuracy
        else None,
        "changes": {
            "images": difference.images,
            "changed": len(difference.changes),
            "share": difference.share,
            "score_before": difference.score_before,
            "score": difference.score,
            "score_moved": difference.score_moved,
            "flows": [
                {"before": before, "after": after, "images": count}
                for before, after, count in difference.transitions
            ],
        }
        if difference
        else None,
    }


def _row(found: LabelAccuracy) -> Sequence[object]:
    before = "" if found.accuracy_before is None else percent(found.accuracy_before)
    drop = percent(found.drop) if found.correct_before is not None else ""
    return found.label, found.images, before, percent(found.accuracy), drop


def _label_accuracy(found: LabelAccuracy) -> dict[str, Any]:
    return {
        "label": found.label,
        "images": found.images,
        "right": found.correct,
        "before": found.correct_before,
        "accuracy": found.accuracy,
        "drop": found.drop,
        "accuracy_before": found.accuracy_before,
    }
