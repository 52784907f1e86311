"""The report of a lake: the predictions of all versions, counted by Spark, as one HTML page.

Each table is read at one Delta version. The driver receives counts, a few hundred chosen rows and
their thumbnails, never a photo.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace

from pyspark.sql import DataFrame, Row, SparkSession

from mlproject.inference import ERRORS
from mlproject.ingestion import labels
from mlproject.lake import snapshots
from mlproject.reporting import html, report_queries
from mlproject.reporting.report_queries import Difference, ErrorCount, Picture, VersionCounts
from mlproject.rollout import ledger
from mlproject.versions.registry import Version

READ = ("path", "image_id", "label", "error", "ingested_at")  # the content stays unread
COLUMNS = 8  # versions side by side, at most: the width of a page
LABELS = 30  # labels with a row of their own; one line counts the others
SHOWN = 6  # versions, and pairs of versions, with thumbnails, at most: a page of about 1 MB


@dataclass(frozen=True, slots=True)
class ServingVersion:
    """The serving version of one alias or stage."""

    pointer: str
    """The alias or stage as a URI."""
    serving: ledger.Entry | None
    """Its last `serving` row in `rollouts`, whose version is without the pointer here; None = no
    version has served yet."""
    predictions: int
    """Images of the table of images for which the serving version has a prediction."""


@dataclass(frozen=True, slots=True)
class Labels:
    """The most frequent predicted labels of the versions side by side."""

    shown: tuple[str | None, ...]
    """Most frequent first; None = predictions without a label."""
    others: int
    """How many more labels were predicted."""
    folders: Mapping[str, int]
    """Label -> images in folders of that name."""


@dataclass(frozen=True, slots=True)
class ReportData:
    """The data of a report."""

    lake: str
    """The folder or URI of the tables."""
    made_at: int
    """When the tables were read, microseconds since 1970."""
    table_versions: Mapping[str, int | None]
    """Table -> the Delta version that was read; None = there is no such table yet."""
    images: Row
    """Counts of the table of images, as `report_queries.count_images` gives them."""
    serving: tuple[ServingVersion, ...]
    """One for each alias or stage, by name."""
    versions: tuple[VersionCounts, ...]
    """Every version that has predictions, by name, number and time."""
    columns: tuple[Version, ...]
    """The versions side by side: the serving versions, and those scored last."""
    labels: Labels
    """The labels in the rows of these columns."""
    certainties: tuple[tuple[Version, tuple[Picture, ...], tuple[Picture, ...]], ...]
    """Versions with the images of their highest and of their lowest scores, these first."""
    differences: tuple[Difference, ...]
    """Quantized versions and their sources, and two versions of each shown model."""
    errors: tuple[ErrorCount, ...]
    """One for each error code that occurs."""
    thumbnails: Mapping[str, bytes]
    """image_id -> JPEG, for the shown images that can be decoded."""

    def counts(self, version: Version) -> VersionCounts | None:
        """The counts of a version; None = it has no predictions."""
        return next((found for found in self.versions if found.version == version), None)

    def pointers(self, version: Version) -> list[str]:
        """The aliases and stages whose serving version this is."""
        return [
            found.pointer
            for found in self.serving
            if found.serving and found.serving.version == version
        ]

    def name(self, version: Version) -> str:
        """Model name and number; with the model id where several versions share them."""
        known = {found.version for found in self.versions}
        known |= {found.serving.version for found in self.serving if found.serving}
        same = [found for found in known if found.uri == version.uri]
        name = f"{version.name} {version.version}"
        return f"{name} ({version.model_id})" if len(same) > 1 else name


def collect(
    spark: SparkSession, lake: str, source_of: Callable[[Version], str] = lambda version: ""
) -> ReportData:
    """The data of a report, from one pinned version of each table.

    `source_of` gives the URI of the version that one was quantized from; "" = it was not.

    Raises:
        UserError: There is no table of images, or a table has other columns than this project's.
    """
    made_at = time.time_ns() // 1000
    # In this order: the tables that are pinned later hold every version that `rollouts` names.
    page = ledger.read(lake)
    scored = snapshots.newest(lake, "predictions")
    pinned = snapshots.required(lake, "images")
    with ExitStack() as stack:

        def keep(frame: DataFrame) -> DataFrame:
            stack.callback(frame.unpersist)
            return frame.persist()

        rows = pinned.read(spark).select(*READ)
        newest = labels.with_newest(rows, snapshots.rows(spark, lake, "labels"))
        images = keep(newest.select(*READ))
        scores = snapshots.rows(spark, lake, "predictions", scored)
        predictions = keep(report_queries.predictions_with_images(images, scores))
        versions = report_queries.count_predictions(predictions)
        serving = tuple(_serving_version(page, name, versions) for name in page.known())
        by_time = sorted(versions, key=lambda found: found.last_at, reverse=True)
        last_scored = [found.version for found in by_time]
        heads = _heads(last_scored, [found.serving for found in serving if found.serving])
        chosen = list(dict.fromkeys([*heads, *last_scored]))[:COLUMNS]
        columns = [found for found in versions if found.version in chosen]
        counts = report_queries.count_images(images)
        label_counts = _labels(images, columns)
        certainties = tuple(
            (head, *report_queries.most_and_least_certain(predictions, head))
            for head in heads[:SHOWN]
        )
        pairs = _pairs(heads, last_scored, {one: source_of(one) for one in last_scored})[:SHOWN]
        differences = tuple(report_queries.difference(predictions, *pair) for pair in pairs)
        errors = report_queries.count_errors(images, predictions)
    shown = [picture for _, most, least in certainties for picture in (*most, *least)]
    shown += [picture for found in differences for picture in found.pictures]
    places = {
        picture.image_id: (picture.path, picture.ingested_at)
        for picture in shown
        if picture.path is not None and picture.ingested_at is not None
    }
    return ReportData(
        lake,
        made_at,
        {
            "images": pinned.version,
            "predictions": scored.version if scored else None,
            "rollouts": page.since.version if page.since else None,
        },
        counts,
        serving,
        versions,
        tuple(found.version for found in columns),
        label_counts,
        certainties,
        differences,
        errors,
        html.pictures(pinned.read(spark), places),
    )


def render(report: ReportData) -> str:
    """The report as HTML that loads no other file and calls no server."""
    return html.render("report.html.j2", report.thumbnails, report=report, meanings=ERRORS)


def _serving_version(
    page: ledger.LedgerSnapshot, pointer: str, versions: Iterable[VersionCounts]
) -> ServingVersion:
    now = page.serving(pointer)
    if now is None:
        return ServingVersion(pointer, None, 0)
    version = replace(now.version, pointer=None)
    predictions = next((found.known for found in versions if found.version == version), 0)
    return ServingVersion(pointer, replace(now, version=version), predictions)


def _heads(last_scored: list[Version], serving: Iterable[ledger.Entry]) -> list[Version]:
    """The versions of interest: the serving ones, the newest first, and of each other model one.

    That one is the version that was scored last, the first in `last_scored`.
    """
    rows = sorted(serving, key=lambda now: now.at, reverse=True)
    heads = list(dict.fromkeys(now.version for now in rows if now.version in last_scored))
    for version in last_scored:
        if version.name not in {head.name for head in heads}:
            heads.append(version)
    return heads


def _pairs(
    heads: list[Version], last_scored: list[Version], sources: Mapping[Version, str]
) -> list[tuple[Version, Version]]:
    """For each model its first head, and the version that was scored last beside it.

    Before them, each quantized version and the one that it was made from, whatever its model.
    """
    pairs = [
        (quantized, source)
        for quantized in last_scored
        for source in last_scored
        if source.uri == sources[quantized]
    ]
    firsts = {head.name: head for head in reversed(heads)}
    for name in dict.fromkeys(head.name for head in heads):
        others = [one for one in last_scored if one.name == name and one != firsts[name]]
        if others and not {(firsts[name], others[0]), (others[0], firsts[name])} & {*pairs}:
            pairs.append((firsts[name], others[0]))
    return pairs


def _labels(images: DataFrame, versions: Iterable[VersionCounts]) -> Labels:
    total: Counter[str | None] = Counter()
    for found in versions:
        total.update(found.labels)
    order = sorted(total, key=lambda label: (-total[label], label is None, label or ""))
    shown = tuple(order[:LABELS])
    named = [label for label in shown if label is not None]
    folders = report_queries.count_folders(images, named) if named else {}
    return Labels(shown, len(order) - len(shown), folders)
