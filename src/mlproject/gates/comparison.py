"""Two versions on the same images: which images, how often right, and what changed; no Spark.

Answers are read from the table of predictions and compared here: at most a few thousand rows.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mlproject.lake import tables
from mlproject.lake.location import Snapshot
from mlproject.scoring import coverage
from mlproject.versions.registry import Version

# The images that ingest could read, each once. Files with the same bytes under different labels
# have none.
IMAGES = """
SELECT image_id, CASE WHEN min(label) = max(label) THEN min(label) END AS label
FROM images GROUP BY image_id HAVING count(error) = 0
"""
ASKED = 1000  # ids in one query: with 30,000 DataFusion overflows its stack (deltalake 1.6.6)


@dataclass(frozen=True, slots=True)
class Image:
    """One image that versions are compared on."""

    image_id: str
    """Sha256 of the content."""
    label: str | None
    """The label that its files agree on; None = they have none, or several."""
    sampled: bool
    """Whether it is of the sample on which changes are counted; else for its label only."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What one version said about one image."""

    label: str | None
    """The label; None beside an error."""
    score: float | None
    """Its score, 0..1; None beside an error."""
    labels: tuple[str, ...]
    """All labels in the answer, the next best too."""
    error: str | None
    """The error code; None = none."""

    @property
    def words(self) -> str:
        """The label, or the error."""
        return f"error: {self.error}" if self.error else str(self.label)


Answers = Mapping[str, Answer]


@dataclass(frozen=True, slots=True)
class Right:
    """How often labelled images were told right: by the version, and by the one before."""

    label: str
    """The images' label; "" = all together."""
    images: int
    """Images that were answered, by both where there are two; an error is a wrong answer."""
    right: int
    """Images among them that the version told right."""
    before: int | None
    """Images among them that the version before told right; None = there is none."""

    @property
    def accuracy(self) -> float:
        """Share that the version told right, 0..1."""
        return self.right / self.images

    @property
    def accuracy_before(self) -> float | None:
        """Share that the version before told right, 0..1; None = there is none."""
        return None if self.before is None else self.before / self.images

    @property
    def drop(self) -> float:
        """By how much the accuracy is lower than before; below 0 = higher, 0 = nothing before."""
        return 0.0 if self.before is None else (self.before - self.right) / self.images


@dataclass(frozen=True, slots=True)
class Accuracy:
    """How right a version is on labelled images."""

    total: Right | None
    """All images together; None = there is no image to measure it on."""
    labels: tuple[Right, ...]
    """One a label, those that lost most first."""
    unknown: Mapping[str, int]
    """Label -> images that do not count, as no version gave this label to any image."""


@dataclass(frozen=True, slots=True)
class Change:
    """One image to which two versions gave different labels, or one an error."""

    image: Image
    """The image."""
    before: Answer
    """What readers see."""
    after: Answer
    """What they would see."""


@dataclass(frozen=True, slots=True)
class Difference:
    """What would change for readers, on the sample."""

    images: int
    """Images of the sample that both have answered."""
    changes: tuple[Change, ...]
    """The changed ones; those first on which both are most certain."""
    flows: tuple[tuple[str, str, int], ...]
    """(said before, said now, images) of the changed ones, most frequent first."""
    score_before: float | None
    """Mean score of the version before, on images that both gave a label; None = no such image."""
    score: float | None
    """Mean score of the version, on the same."""
    score_moved: float | None
    """Mean of how far an image's score moved, up or down, on the same."""

    @property
    def share(self) -> float:
        """Share of the images that changed, 0..1."""
        return len(self.changes) / self.images if self.images else 0.0


def choose(lake: str, count: int, images: Snapshot) -> tuple[Image, ...]:
    """The sample, which is the same each time, and the labelled images beside it.

    Args:
        lake: As `lakes.locate` gives it.
        count: Images of the sample, and labelled images, at most: those with the smallest
            image_id, which is a hash. With labels everywhere they are the same images.
        images: The version of `images` that is read.
    """
    every = f"(SELECT *, true AS sampled FROM ({IMAGES}) ORDER BY image_id LIMIT {count})"
    labelled = f"""(SELECT *, false AS sampled FROM ({IMAGES}) WHERE label IS NOT NULL
        ORDER BY image_id LIMIT {count})"""
    sql = f"""SELECT image_id, label, bool_or(sampled) AS sampled
        FROM ({every} UNION ALL {labelled}) AS chosen GROUP BY image_id, label ORDER BY image_id"""
    rows = tables.query(lake, sql, ["images"], images).to_pylist()
    return tuple(Image(**row) for row in rows)


def answers(lake: str, version: Version, images: Iterable[Image]) -> dict[str, Answer]:
    """What a version has said about images, by image_id."""
    wanted = f"{coverage.is_of(version)} AND"
    columns, ids = "image_id, label, score, top_labels, error", [found.image_id for found in images]
    rows = _rows(lake, f"SELECT {columns} FROM predictions WHERE {wanted}", ids, "predictions")
    return {row["image_id"]: _answer(row) for row in rows}


def places(lake: str, image_ids: Iterable[str], images: Snapshot) -> dict[str, tuple[str, int]]:
    """For each image the path of one of its files, and its ingested_at, microseconds since 1970."""
    sql = """SELECT image_id, path, arrow_cast(ingested_at, 'Int64') AS time FROM images WHERE"""
    rows = _rows(lake, sql, list(image_ids), "images", images)
    found = sorted(((row["image_id"], row["path"], row["time"]) for row in rows), reverse=True)
    return {image_id: (path, time) for image_id, path, time in found}  # the first path stays


def accuracy(images: Iterable[Image], after: Answers, before: Answers | None) -> Accuracy:
    """How right a version is on the labelled images that it, and the one before, have answered.

    A label counts when either gave it to any of the images, at least among the next best: one
    that only the version before knows is a loss, and a folder's name such as "2024-05" is none.

    Args:
        images: As `choose` gives them.
        after: The version's answers.
        before: Those of the version before; None = there is none.
    """
    both = _both(images, after, before)
    said = [*after.values(), *(before or {}).values()]
    known = {label for answer in said for label in (answer.label, *answer.labels) if label}
    labelled = [image for image in both if image.label]
    unknown = Counter(str(image.label) for image in labelled if image.label not in known)
    count: Counter[str] = Counter()
    now: Counter[str] = Counter()
    then: Counter[str] = Counter()
    for image in labelled:
        if image.label in known:
            label = str(image.label)
            count[label] += 1
            now[label] += after[image.image_id].label == label
            then[label] += before is not None and before[image.image_id].label == label
    found = [
        Right(label, count[label], now[label], None if before is None else then[label])
        for label in count
    ]
    total = Right("", count.total(), now.total(), None if before is None else then.total())
    order = sorted(found, key=lambda right: (-right.drop, right.accuracy, right.label))
    return Accuracy(total if count else None, tuple(order), dict(unknown))


def difference(images: Iterable[Image], after: Answers, before: Answers) -> Difference:
    """What changes on the sample from one version's answers to another's."""
    both = [image for image in _both(images, after, before) if image.sampled]
    found = [Change(image, before[image.image_id], after[image.image_id]) for image in both]
    changes = [change for change in found if change.before.words != change.after.words]
    changes.sort(key=lambda change: (-_certainty(change), change.image.image_id))
    flows = Counter((change.before.words, change.after.words) for change in changes)
    scores = [
        (change.before.score, change.after.score)
        for change in found
        if change.before.score is not None and change.after.score is not None
    ]
    return Difference(
        len(both),
        tuple(changes),
        tuple((*pair, count) for pair, count in sorted(flows.items(), key=lambda f: (-f[1], f[0]))),
        _mean([then for then, _ in scores]),
        _mean([now for _, now in scores]),
        _mean([abs(now - then) for then, now in scores]),
    )


def _rows(
    lake: str, sql: str, image_ids: Sequence[str], table: str, at: Snapshot | None = None
) -> Iterator[dict[str, Any]]:
    for start in range(0, len(image_ids), ASKED):
        ids = ", ".join(f"'{image_id}'" for image_id in image_ids[start : start + ASKED])
        yield from tables.query(lake, f"{sql} image_id IN ({ids})", [table], at).to_pylist()


def _both(images: Iterable[Image], after: Answers, before: Answers | None) -> list[Image]:
    """The images that each version was shown."""
    sides = [after] if before is None else [after, before]
    return [image for image in images if all(_shown(said, image) for said in sides)]


def _shown(answers: Answers, image: Image) -> bool:
    return image.image_id in answers and answers[image.image_id].error not in coverage.NO_BYTES


def _certainty(change: Change) -> float:
    return min(change.before.score or 0.0, change.after.score or 0.0)


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _answer(row: Mapping[str, Any]) -> Answer:
    labels = tuple(label for label in row["top_labels"] or () if label)
    return Answer(row["label"], row["score"], labels, row["error"])
