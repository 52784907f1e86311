"""Two versions on the same images: the images, the accuracies and the changed labels; no Spark.

Predictions are read from the table and compared in memory: at most a few thousand rows.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mlproject.ingestion.labels import CURRENT, ONE_LABEL
from mlproject.lake.queries import query
from mlproject.lake.snapshots import Snapshot
from mlproject.scoring import coverage
from mlproject.versions.registry import Version

# Each image that ingest could read, once. Files with the same bytes under different labels have no
# label.
READABLE_IMAGES = f"""
SELECT image_id, {ONE_LABEL} AS label
FROM ({CURRENT}) AS current GROUP BY image_id HAVING count(error) = 0
"""
# Source: with 30,000 ids in one query DataFusion overflows its stack (deltalake 1.6.6).
IDS_PER_QUERY = 1000


@dataclass(frozen=True, slots=True)
class Image:
    """One image that versions are compared on."""

    image_id: str
    """Sha256 of the content."""
    label: str | None
    """The label of all its files; None = no label, or several."""
    sampled: bool
    """Whether it belongs to the sample on which changes are counted; else it has a label."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """The prediction of one version for one image."""

    label: str | None
    """The label; None beside an error."""
    score: float | None
    """The score of the label, 0..1; None beside an error."""
    top_labels: tuple[str, ...]
    """The labels with the highest scores, best first."""
    error: str | None
    """The error code; None = no error."""

    @property
    def text(self) -> str:
        """The label, or the error."""
        return f"error: {self.error}" if self.error else str(self.label)


Predictions = Mapping[str, Prediction]
"""image_id -> prediction."""


@dataclass(frozen=True, slots=True)
class LabelAccuracy:
    """How many labelled images a version and the serving version predict correctly."""

    label: str
    """The label of the images; "" = all labels."""
    images: int
    """Images with a prediction, of both versions where two are compared; an error is incorrect."""
    correct: int
    """Images among them with a correct prediction of the version."""
    correct_before: int | None
    """Images among them with a correct prediction of the serving version; None = there is none."""

    @property
    def accuracy(self) -> float:
        """Share of correct predictions of the version, 0..1."""
        return self.correct / self.images

    @property
    def accuracy_before(self) -> float | None:
        """Share of correct predictions of the serving version, 0..1; None = there is none."""
        return None if self.correct_before is None else self.correct_before / self.images

    @property
    def drop(self) -> float:
        """How much lower the accuracy is than before, -1..1; 0 = there is no serving version."""
        before = self.correct if self.correct_before is None else self.correct_before
        return (before - self.correct) / self.images


@dataclass(frozen=True, slots=True)
class Accuracy:
    """The accuracy of a version on labelled images."""

    total: LabelAccuracy | None
    """All images together; None = there is no image to measure it on."""
    labels: tuple[LabelAccuracy, ...]
    """One for each label, the largest drop first."""
    unknown: Mapping[str, int]
    """Label -> images that do not count, because no version predicts this label for any image."""


@dataclass(frozen=True, slots=True)
class Change:
    """One image and the predictions of two versions for it."""

    image: Image
    """The image."""
    before: Prediction
    """The prediction of the serving version."""
    after: Prediction
    """The prediction of the version that is checked."""


@dataclass(frozen=True, slots=True)
class Difference:
    """How the predictions for the sample change."""

    images: int
    """Images of the sample that have a prediction of both versions."""
    changes: tuple[Change, ...]
    """The images whose label or error changes; the ones with the highest scores first."""
    transitions: tuple[tuple[str, str, int], ...]
    """(label before, label after, images) of the changes, the most frequent first."""
    score_before: float | None
    """Mean score of the serving version, on images without errors; None = no such image."""
    score: float | None
    """Mean score of the version, on the same images."""
    score_moved: float | None
    """Mean absolute difference of the two scores of an image, on the same images."""

    @property
    def share(self) -> float:
        """Share of the images that change, 0..1."""
        return len(self.changes) / self.images if self.images else 0.0


def sample_images(lake: str, count: int, images: Snapshot) -> tuple[Image, ...]:
    """The sample, which is the same each time, and labelled images.

    Each is `count` images at most: those with the smallest image_id, which is a hash. Where every
    image has a label they are the same images.
    """
    sample = f"(SELECT *, true AS sampled FROM ({READABLE_IMAGES}) ORDER BY image_id LIMIT {count})"
    labelled = f"""(SELECT *, false AS sampled FROM ({READABLE_IMAGES}) WHERE label IS NOT NULL
        ORDER BY image_id LIMIT {count})"""
    sql = f"""SELECT image_id, label, bool_or(sampled) AS sampled
        FROM ({sample} UNION ALL {labelled}) AS chosen GROUP BY image_id, label ORDER BY image_id"""
    rows = query(lake, sql, ["labels"], images=images).to_pylist()
    return tuple(Image(**row) for row in rows)


def read_predictions(lake: str, version: Version, images: Iterable[Image]) -> dict[str, Prediction]:
    """The predictions of a version for images, by image_id."""
    sql = "SELECT image_id, label, score, top_labels, error FROM predictions"
    sql += f" WHERE {coverage.made_by(version)} AND"
    rows = _rows(lake, sql, [image.image_id for image in images], "predictions")
    return {
        row["image_id"]: Prediction(
            row["label"], row["score"], tuple(filter(None, row["top_labels"] or ())), row["error"]
        )
        for row in rows
    }


def image_paths(lake: str, image_ids: Iterable[str]) -> dict[str, tuple[str, int]]:
    """image_id -> path of one of its files, and its ingested_at, microseconds since 1970."""
    sql = "SELECT image_id, path, arrow_cast(ingested_at, 'Int64') AS time FROM images WHERE"
    rows = _rows(lake, sql, list(image_ids), "images")
    found = sorted(((row["image_id"], row["path"], row["time"]) for row in rows), reverse=True)
    return {image_id: (path, time) for image_id, path, time in found}  # the first path stays


def accuracy(images: Iterable[Image], after: Predictions, before: Predictions | None) -> Accuracy:
    """The accuracy of a version on the labelled images that every version has a prediction for.

    A label counts when either version predicts it for any image, at least among the top labels:
    a label that only the serving version predicts is a drop, and a folder named "2024-05" is no
    label.
    """
    predictions = [*after.values(), *(before or {}).values()]
    known = {label for found in predictions for label in (found.label, *found.top_labels) if label}
    labelled = [image for image in _comparable(images, after, before) if image.label]
    unknown = Counter(str(image.label) for image in labelled if image.label not in known)
    count: Counter[str] = Counter()
    correct: Counter[str] = Counter()
    correct_before: Counter[str] = Counter()
    for image in labelled:
        if image.label in known:
            label = str(image.label)
            count[label] += 1
            correct[label] += after[image.image_id].label == label
            correct_before[label] += before is not None and before[image.image_id].label == label

    def measured(label: str, images: int, now: int, then: int) -> LabelAccuracy:
        return LabelAccuracy(label, images, now, None if before is None else then)

    labels = [
        measured(label, count[label], correct[label], correct_before[label]) for label in count
    ]
    labels.sort(key=lambda found: (-found.drop, found.accuracy, found.label))
    total = measured("", count.total(), correct.total(), correct_before.total())
    return Accuracy(total if count else None, tuple(labels), dict(unknown))


def difference(images: Iterable[Image], after: Predictions, before: Predictions) -> Difference:
    """How the predictions for the sample change from one version to another."""
    both = [image for image in _comparable(images, after, before) if image.sampled]
    pairs = [Change(image, before[image.image_id], after[image.image_id]) for image in both]
    changes = [pair for pair in pairs if pair.before.text != pair.after.text]
    changes.sort(key=lambda change: (-_lower_score(change), change.image.image_id))
    counts = Counter((change.before.text, change.after.text) for change in changes)
    transitions = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    scores = [
        (pair.before.score, pair.after.score)
        for pair in pairs
        if pair.before.score is not None and pair.after.score is not None
    ]
    return Difference(
        len(both),
        tuple(changes),
        tuple((*labels, count) for labels, count in transitions),
        _mean([then for then, _ in scores]),
        _mean([now for _, now in scores]),
        _mean([abs(now - then) for then, now in scores]),
    )


def _rows(lake: str, sql: str, image_ids: Sequence[str], table: str) -> Iterator[dict[str, Any]]:
    for start in range(0, len(image_ids), IDS_PER_QUERY):
        ids = ", ".join(f"'{image_id}'" for image_id in image_ids[start : start + IDS_PER_QUERY])
        yield from query(lake, f"{sql} image_id IN ({ids})", [table]).to_pylist()


def _comparable(
    images: Iterable[Image], after: Predictions, before: Predictions | None
) -> list[Image]:
    """The images that every version could read and has a prediction for."""
    ids = [
        {image_id for image_id, found in side.items() if found.error not in coverage.NO_BYTES}
        for side in (after, before)
        if side is not None
    ]
    return [image for image in images if all(image.image_id in side for side in ids)]


def _lower_score(change: Change) -> float:
    return min(change.before.score or 0.0, change.after.score or 0.0)


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
