"""Queries of a report: counts and a few chosen rows, never image content; no Spark.

Counts that join by ids are asked for ranges of ids, and the answers are added.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from mlproject.ingestion.labels import CURRENT, ONE_LABEL
from mlproject.lake import queries
from mlproject.lake.queries import quoted, summed
from mlproject.lake.snapshots import Snapshot
from mlproject.reporting.report_data import (
    Difference,
    ErrorCount,
    ImageCounts,
    Picture,
    VersionCounts,
)
from mlproject.scoring.coverage import made_by
from mlproject.versions.registry import Version

KEY = ("model_name", "model_version", "model_id")
PICTURES = 8  # images with the highest scores of a version, and with the lowest
DIFFERENT = 12  # images with different labels of two versions
TRANSITIONS = 8  # most frequent pairs of different labels of two versions

Row = dict[str, Any]

_KEY = ", ".join(KEY)
# One row an image. As for gates, files with the same bytes under different labels have no label.
_IMAGES = f"""SELECT image_id, {ONE_LABEL} AS folder,
    count(*) AS files, min(error) AS error FROM ({CURRENT}) AS current
    WHERE {{ids}} GROUP BY image_id"""


@dataclass(frozen=True, slots=True)
class Tables:
    """The versions of the tables that a report reads."""

    images: Snapshot
    """Of the table of images."""
    labels: Snapshot | None
    """Of the labels that were given later; None = no table yet."""
    predictions: Snapshot | None
    """Of the predictions; None = no table yet."""

    def query(self, sql: str) -> list[Row]:
        """The rows that a query of these tables finds."""
        return list(queries.query(self.images.lake, sql, **self._pinned()).to_pylist())

    def in_ranges(self, sql: Callable[[str], str]) -> Iterator[pa.Table]:
        """As `queries.in_ranges`."""
        return queries.in_ranges(self.images.lake, sql, **self._pinned())

    def _pinned(self) -> dict[str, Any]:
        return {"images": self.images, "labels": self.labels, "predictions": self.predictions}


def count(tables: Tables) -> tuple[ImageCounts, tuple[VersionCounts, ...]]:
    """The counts of the table of images, and those of each version by name, number and time."""
    totals = _by_version(
        tables.query(
            f"""SELECT {_KEY}, count(*) AS images, count(error) AS errors,
                avg(CASE WHEN NOT isnan(score) THEN score END) AS mean_score,
                arrow_cast(min(scored_at), 'Int64') AS first_at,
                arrow_cast(max(scored_at), 'Int64') AS last_at FROM predictions GROUP BY {_KEY}"""
        )
    )
    predicted = f"SELECT {_KEY}, label, top_labels FROM predictions WHERE error IS NULL"
    firsts = _by_version(
        tables.query(
            f"SELECT {_KEY}, label, count(*) AS images FROM ({predicted}) GROUP BY {_KEY}, label"
        )
    )
    tops = _by_version(
        tables.query(f"SELECT DISTINCT {_KEY}, unnest(top_labels) AS label FROM ({predicted})")
    )
    vocabularies = {
        version: frozenset(
            row["label"] for row in (*firsts.get(version, ()), *tops.get(version, ()))
        )
        - {None}
        for version in totals
    }
    images, folders = _by_folder(
        tables,
        sorted(totals, key=lambda version: -totals[version][0]["images"]),
        frozenset().union(*vocabularies.values()),
    )
    counted = []
    for version, [total] in totals.items():
        vocabulary, own = vocabularies[version], folders.get(version, [])
        named = [row for row in own if row["folder"] in vocabulary]
        counted.append(
            VersionCounts(
                version,
                known=sum(row["known"] for row in own),
                labelled=sum(row["labelled"] for row in named),
                correct=sum(row["correct"] for row in named),
                labels={row["label"]: row["images"] for row in firsts.get(version, ())},
                vocabulary=vocabulary,
                **total,
            )
        )
    order = sorted(counted, key=lambda one: (one.version.name, one.version.version, one.last_at))
    return images, tuple(order)


def _by_folder(
    tables: Tables, versions: Sequence[Version], labels: Collection[str]
) -> tuple[ImageCounts, dict[Version, list[Row]]]:
    """The counts of images, and those of each version by `folder`: one of these labels, or None.

    The images are counted where the predictions of the first version are looked up: a scan of all
    ids less.
    """

    def joined(condition: str) -> list[Row]:
        found = tables.in_ranges(
            lambda ids: (
                f"""SELECT {_KEY}, folder, count(*) AS images, sum(files) AS files,
                count(every.error) AS unreadable, count(folder) AS named,
                count({KEY[0]}) AS known,
                count(CASE WHEN {KEY[0]} IS NOT NULL AND rows.error IS NULL THEN 1 END) AS labelled,
                count(CASE WHEN rows.error IS NULL AND label = folder THEN 1 END) AS correct
                FROM ({_IMAGES.format(ids=ids)}) AS every
                LEFT JOIN (SELECT * FROM predictions WHERE {condition} AND {ids}) AS rows
                ON every.image_id = rows.image_id GROUP BY {_KEY}, folder"""
            )
        )
        # There may be a folder for each image.
        few = (_without_others(rows, "folder", labels) for rows in found)
        return list(summed(few, [*KEY, "folder"]).to_pylist())

    rows = joined(made_by(versions[0]) if versions else "false")
    in_folders = Counter[str]()
    for row in rows:
        if row["folder"] is not None:
            in_folders[row["folder"]] += row["images"]
    others = joined(f"NOT ({made_by(versions[0])})") if len(versions) > 1 else []
    of_versions = [row for row in (*rows, *others) if row["known"]]
    images = ImageCounts(
        rows=sum(row["files"] for row in rows),
        distinct=sum(row["images"] for row in rows),
        errors=sum(row["unreadable"] for row in rows),
        labelled=sum(row["named"] for row in rows),
        in_folders=in_folders,
    )
    return images, _by_version(of_versions)


def most_and_least_certain(
    tables: Tables, version: Version
) -> tuple[tuple[Picture, ...], tuple[Picture, ...]]:
    """The images with the highest and the lowest scores of a version; no image is in both."""
    own = f"""SELECT image_id, label, score FROM predictions WHERE {made_by(version)}
        AND error IS NULL AND score IS NOT NULL AND NOT isnan(score)"""
    chosen = {}
    for order in ("score DESC", "score"):
        for row in tables.query(f"{own} ORDER BY {order}, image_id LIMIT {PICTURES}"):
            chosen[row["image_id"]] = row
    rows = sorted(chosen.values(), key=lambda row: (-row["score"], row["image_id"]))
    half = (len(rows) + 1) // 2
    least = sorted(rows[half:], key=lambda row: (row["score"], row["image_id"]))
    return tuple(map(_picture, rows[:half])), tuple(map(_picture, least))


def difference(tables: Tables, version: Version, other: Version) -> Difference:
    """How often, in which labels and for which images the predictions of two versions differ."""

    def both(ids: str) -> str:
        own, others = (
            f"""(SELECT image_id, label, score FROM predictions
                WHERE {made_by(one)} AND error IS NULL AND {ids})"""
            for one in (version, other)
        )
        return f"""SELECT own.image_id, own.label, own.score, others.label AS other_label,
            others.score AS other_score, own.label IS DISTINCT FROM others.label AS differs
            FROM {own} AS own JOIN {others} AS others ON own.image_id = others.image_id"""

    rows = tables.in_ranges(
        lambda ids: (
            f"""SELECT label, other_label, differs, count(*) AS images,
            count(CASE WHEN label = folder THEN 1 END) AS correct,
            count(CASE WHEN other_label = folder THEN 1 END) AS other_correct
            FROM ({both(ids)}) AS pairs LEFT JOIN ({_IMAGES.format(ids=ids)}) AS every
            ON pairs.image_id = every.image_id GROUP BY label, other_label, differs"""
        )
    )
    counts = summed(rows, ["label", "other_label", "differs"])
    different = counts.filter(counts["differs"])
    order = [("images", "descending"), ("other_label", "ascending"), ("label", "ascending")]
    transitions = different.sort_by(order).slice(0, TRANSITIONS).to_pylist()
    pictures: list[Row] = []
    if transitions:
        lower_score = "coalesce(least(score, other_score), 0.0)"
        for found in tables.in_ranges(
            lambda ids: (
                f"""SELECT *, {lower_score} AS lower_score FROM ({both(ids)}) AS pairs
                WHERE differs ORDER BY lower_score DESC, image_id LIMIT {DIFFERENT}"""
            )
        ):
            pictures += found.to_pylist()
    pictures.sort(key=lambda row: (-row["lower_score"], row["image_id"]))
    return Difference(
        version,
        other,
        both=_total(counts, "images"),
        different=_total(different, "images"),
        correct=_total(different, "correct"),
        other_correct=_total(different, "other_correct"),
        transitions=tuple((row["other_label"], row["label"], row["images"]) for row in transitions),
        pictures=tuple(map(_picture, pictures[:DIFFERENT])),
    )


def count_errors(tables: Tables) -> tuple[ErrorCount, ...]:
    """Every code that occurs in the table of images or in predictions, by code.

    Its examples are ids of images here.
    """
    ends = "min(image_id) AS first, max(image_id) AS last"
    unreadable = tables.query(
        f"""SELECT error, count(DISTINCT image_id) AS images, {ends} FROM images
            WHERE error IS NOT NULL GROUP BY error"""
    )
    failed = tables.query(
        f"""SELECT {_KEY}, error, count(*) AS images, {ends} FROM predictions
            WHERE error IS NOT NULL GROUP BY {_KEY}, error"""
    )
    found = []
    for code in sorted({row["error"] for row in (*unreadable, *failed)}):
        ingested, predicted = (
            [row for row in rows if row["error"] == code] for rows in (unreadable, failed)
        )
        own = [*ingested, *predicted]
        ids = {min(row["first"] for row in own), max(row["last"] for row in own)}
        versions = {_version(row): row["images"] for row in predicted}
        images = sum(row["images"] for row in ingested)
        found.append(ErrorCount(code, images, versions, tuple(sorted(ids))))
    return tuple(found)


def files(tables: Tables, image_ids: Iterable[str]) -> dict[str, list[Row]]:
    """The rows of a few hundred images in the table, each with its current label, first to last.

    They have what `stored_images.each` takes.
    """
    ids = ", ".join(map(quoted, sorted(image_ids)))
    if not ids:
        return {}
    found: dict[str, list[Row]] = {}
    for row in tables.query(
        f"SELECT * FROM ({CURRENT}) AS current WHERE image_id IN ({ids}) ORDER BY ingested_at, path"
    ):
        found.setdefault(row["image_id"], []).append(row)
    return found


def _by_version(rows: Iterable[Row]) -> dict[Version, list[Row]]:
    """The rows of each version, without its key."""
    found: dict[Version, list[Row]] = {}
    for row in rows:
        rest = {name: value for name, value in row.items() if name not in KEY}
        found.setdefault(_version(row), []).append(rest)
    return found


def _version(row: Row) -> Version:
    return Version(row["model_name"], row["model_version"], row["model_id"], None)


def _total(rows: pa.Table, column: str) -> int:
    return int(pc.sum(rows[column]).as_py() or 0)


def _without_others(rows: pa.Table, column: str, values: Collection[str]) -> pa.Table:
    """The rows with null for all but these values of a column of strings."""
    is_kept = pc.is_in(rows[column], pa.array(values, pa.string()))
    kept = pc.if_else(is_kept, rows[column], None)
    return rows.set_column(rows.column_names.index(column), column, kept)


def _picture(row: Row) -> Picture:
    predictions = [(row["label"], row["score"])]
    if "other_label" in row:
        predictions.append((row["other_label"], row["other_score"]))
    return Picture(row["image_id"], tuple(predictions))
