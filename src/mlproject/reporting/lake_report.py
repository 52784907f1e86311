"""The report of a lake: the predictions of all versions, counted by Spark, as one HTML page.

Each table is read at one Delta version. The driver receives counts, a few hundred chosen rows and
their thumbnails, never a photo.
"""

import time
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass

from pyspark.sql import DataFrame, SparkSession

from mlproject.inference import ERRORS
from mlproject.ingestion import labels
from mlproject.lake import location, snapshots
from mlproject.reporting import html, report_queries
from mlproject.reporting.report_queries import (
    Difference,
    ErrorCount,
    ImageCounts,
    Picture,
    VersionCounts,
    without_pointer,
)
from mlproject.rollout import ledger
from mlproject.versions.registry import Version

READ = (
    "path",
    "image_id",
    "label",
    "error",
    "ingested_at",
)  # columns of images: the content stays unread
COLUMNS = 8  # versions side by side, at most: the width of a page
LABELS = 30  # labels with a row of their own; one line counts the others
SHOWN = 6  # versions, and pairs of versions, with thumbnails, at most: a page of about 1 MB


@dataclass(frozen=True, slots=True)
class ServingVersion:
    """The serving version of one alias or stage."""

    pointer: str
    """The alias or stage as a URI."""
    serving: ledger.Entry | None
    """Its last `serving` row in `rollouts`; None = no version has served yet."""
    predictions: int
    """Images of the table of images for which the serving version has a prediction."""


@dataclass(frozen=True, slots=True)
class Certainty:
    """The images with the highest and the lowest scores of one version."""

    version: Version
    """The version."""
    most: tuple[Picture, ...]
    """Highest scores first."""
    least: tuple[Picture, ...]
    """Lowest scores first."""


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
    images: ImageCounts
    """Counts of the table of images."""
    serving: tuple[ServingVersion, ...]
    """One for each alias or stage, by name."""
    versions: tuple[VersionCounts, ...]
    """Every version that has predictions, by name, number and time."""
    columns: tuple[Version, ...]
    """The versions side by side: the serving versions, and those scored last."""
    labels: Labels
    """The labels in the rows of these columns."""
    certainties: tuple[Certainty, ...]
    """One for each version whose images are shown."""
    differences: tuple[Difference, ...]
    """One for each shown model that has predictions of two versions."""
    errors: tuple[ErrorCount, ...]
    """One for each error code that occurs."""
    thumbnails: Mapping[str, bytes]
    """image_id -> JPEG, for the shown images that can be decoded."""

    def counts(self, version: Version) -> VersionCounts | None:
        """The counts of a version; None = it has no predictions."""
        wanted = without_pointer(version)
        return next((found for found in self.versions if found.version == wanted), None)

    def pointers(self, version: Version) -> list[str]:
        """The aliases and stages whose serving version this is."""
        return [
            found.pointer
            for found in self.serving
            if found.serving and without_pointer(found.serving.version) == without_pointer(version)
        ]

    def name(self, version: Version) -> str:
        """Model name and number; with the model id where several versions share them."""
        known = {without_pointer(found.version) for found in self.versions}
        serving = [found.serving.version for found in self.serving if found.serving]
        known |= set(map(without_pointer, serving))
        same = [found for found in known if found.uri == version.uri]
        name = f"{version.name} {version.version}"
        return f"{name} ({version.model_id})" if len(same) > 1 else name


def collect(spark: SparkSession, lake: str) -> ReportData:
    """The data of a report, from one pinned version of each table.

    Args:
        spark: A session with Delta.
        lake: The folder or URI of the tables.

    Raises:
        UserError: There is no table of images, or a table has other columns than this project's.
    """
    lake = location.locate(lake)
    made_at = time.time_ns() // 1000
    # In this order: the tables that are pinned later hold every version that `rollouts` names.
    page = ledger.read(lake)
    predictions, predictions_version = _read(spark, lake, "predictions")
    pinned = snapshots.required(lake, "images")
    with ExitStack() as stack:

        def keep(frame: DataFrame) -> DataFrame:
            stack.callback(frame.unpersist)
            return frame.persist()

        rows = pinned.read(spark).select(*READ)
        newest = labels.with_newest(rows, snapshots.rows(spark, lake, "labels"))
        images = keep(newest.select(*READ))
        predictions = keep(report_queries.predictions_with_images(images, predictions))
        versions = report_queries.count_predictions(predictions)
        serving = tuple(_serving_version(page, name, versions) for name in page.known())
        heads = _heads(versions, [found.serving for found in serving if found.serving])
        columns = _columns(versions, heads)
        counts = report_queries.count_images(images)
        label_counts = _labels(images, [found for found in versions if found.version in columns])
        certainties = tuple(
            Certainty(head, *report_queries.most_and_least_certain(predictions, head))
            for head in heads[:SHOWN]
        )
        pairs = _pairs(versions, heads)[:SHOWN]
        differences = tuple(report_queries.difference(predictions, *pair) for pair in pairs)
        errors = report_queries.count_errors(images, predictions)
    shown = [picture for found in certainties for picture in (*found.most, *found.least)]
    shown += [picture for found in differences for picture in found.pictures]
    chosen = {
        picture.image_id: (picture.path, picture.ingested_at)
        for picture in shown
        if picture.path is not None and picture.ingested_at is not None
    }
    return ReportData(
        lake,
        made_at,
        {
            "images": pinned.version,
            "predictions": predictions_version,
            "rollouts": page.since.version if page.since else None,
        },
        counts,
        serving,
        versions,
        columns,
        label_counts,
        certainties,
        differences,
        errors,
        html.pictures(pinned.read(spark), chosen),
    )


def render(report: ReportData) -> str:
    """The report as HTML that loads no other file and calls no server."""
    return html.render("report.html.j2", report.thumbnails, report=report, meanings=ERRORS)


def _read(spark: SparkSession, lake: str, table: str) -> tuple[DataFrame, int | None]:
    """A table's rows and Delta version; no rows and None where there is no such table yet."""
    pinned = snapshots.newest(lake, table)
    return snapshots.rows(spark, lake, table, pinned), pinned.version if pinned else None


def _serving_version(
    page: ledger.LedgerSnapshot, pointer: str, versions: Iterable[VersionCounts]
) -> ServingVersion:
    now = page.serving(pointer)
    version = without_pointer(now.version) if now else None
    return ServingVersion(
        pointer, now, next((found.known for found in versions if found.version == version), 0)
    )


def _heads(versions: Iterable[VersionCounts], serving: Iterable[ledger.Entry]) -> list[Version]:
    """The versions of interest: the serving ones, the newest first, and of each other model one.

    That one is the version that was scored last.
    """
    known = {found.version for found in versions}
    newest = sorted(serving, key=lambda now: now.at, reverse=True)
    heads = dict.fromkeys(
        version for version in (without_pointer(now.version) for now in newest) if version in known
    )
    names = {head.name for head in heads}
    for found in sorted(versions, key=lambda found: -found.last_at):
        if found.version.name not in names:
            names.add(found.version.name)
            heads[found.version] = None
    return list(heads)


def _columns(versions: tuple[VersionCounts, ...], heads: list[Version]) -> tuple[Version, ...]:
    """The versions side by side, in the order of `versions`."""
    newest = [found.version for found in sorted(versions, key=lambda found: -found.last_at)]
    chosen = list(dict.fromkeys([*heads, *newest]))[:COLUMNS]
    return tuple(found.version for found in versions if found.version in chosen)


def _pairs(
    versions: Iterable[VersionCounts], heads: list[Version]
) -> list[tuple[Version, Version]]:
    """For each model its first head, and the version that was scored last beside it."""
    firsts = {head.name: head for head in reversed(heads)}
    pairs = []
    for name in dict.fromkeys(head.name for head in heads):
        own = [found for found in versions if found.version.name == name]
        others = [found for found in own if found.version != firsts[name]]
        if others:
            other = max(others, key=lambda found: found.last_at).version
            pairs.append((firsts[name], other))
    return pairs


def _labels(images: DataFrame, versions: list[VersionCounts]) -> Labels:
    total: Counter[str | None] = Counter()
    for found in versions:
        total.update(found.labels)
    order = sorted(total, key=lambda label: (-total[label], label is None, label or ""))
    shown = tuple(order[:LABELS])
    named = [label for label in shown if label is not None]
    folders = report_queries.count_folders(images, named) if named else {}
    return Labels(shown, len(order) - len(shown), folders)
