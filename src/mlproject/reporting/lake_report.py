"""The report of a lake: the predictions of all versions, counted, as one HTML page.

Each table is read at one Delta version, without Spark. What is read of photos are those of the few
hundred images that are shown.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import replace

from mlproject.inference import ERRORS
from mlproject.lake import queries, snapshots
from mlproject.reporting import html, report_queries
from mlproject.reporting.report_data import (
    Labels,
    Picture,
    ReportData,
    ServingVersion,
    VersionCounts,
)
from mlproject.reporting.report_queries import Row, Tables
from mlproject.rollout import ledger
from mlproject.versions.registry import Version

COLUMNS = 8  # versions side by side, at most: the width of a page
LABELS = 30  # labels with a row of their own; one line counts the others
SHOWN = 6  # versions, and pairs of versions, with thumbnails, at most: a page of about 1 MB


def collect(lake: str, source_of: Callable[[Version], str] = lambda version: "") -> ReportData:
    """The data of a report, from one pinned version of each table.

    `source_of` gives the URI of the version that one was quantized from; "" = it was not. The
    tables are read again where an erasure removes files of the pinned versions meanwhile.

    Raises:
        UserError: There is no table of images, or a table has other columns than this project's.
    """
    while True:
        # In this order: the tables that are pinned later hold every version that `rollouts` names.
        page = ledger.read(lake)
        predictions = snapshots.newest(lake, "predictions")
        labels = snapshots.newest(lake, "labels")
        with suppress(queries.MissingFilesError):
            tables = Tables(snapshots.required(lake, "images"), labels, predictions)
            return _collect(tables, page, source_of)


def _collect(
    tables: Tables, page: ledger.LedgerSnapshot, source_of: Callable[[Version], str]
) -> ReportData:
    made_at = time.time_ns() // 1000
    images, versions = report_queries.count(tables)
    serving = tuple(_serving_version(page, name, versions) for name in page.known())
    by_time = sorted(versions, key=lambda found: found.last_at, reverse=True)
    last_scored = [found.version for found in by_time]
    heads = _heads(last_scored, [found.serving for found in serving if found.serving])
    chosen = list(dict.fromkeys([*heads, *last_scored]))[:COLUMNS]
    columns = [found for found in versions if found.version in chosen]
    labels, others = _most_frequent(columns)
    certainties = [
        (head, report_queries.most_and_least_certain(tables, head)) for head in heads[:SHOWN]
    ]
    pairs = _pairs(heads, last_scored, {one: source_of(one) for one in last_scored})[:SHOWN]
    differences = [report_queries.difference(tables, *pair) for pair in pairs]
    errors = report_queries.count_errors(tables)
    shown = {picture.image_id for _, ends in certainties for end in ends for picture in end}
    shown |= {picture.image_id for found in differences for picture in found.pictures}
    examples = {image_id for found in errors for image_id in found.examples}
    files = report_queries.files(tables, shown | examples)

    def placed(pictures: Iterable[Picture]) -> tuple[Picture, ...]:
        return tuple(_placed(one, files.get(one.image_id, [])) for one in pictures)

    def paths(image_ids: Iterable[str]) -> tuple[str, ...]:
        return tuple(sorted(files[found][0]["path"] for found in image_ids if found in files))

    return ReportData(
        lake=tables.images.lake,
        made_at=made_at,
        table_versions={
            "images": tables.images.version,
            "predictions": tables.predictions.version if tables.predictions else None,
            "rollouts": page.since.version if page.since else None,
        },
        images=images,
        serving=serving,
        versions=versions,
        columns=tuple(found.version for found in columns),
        labels=Labels(labels, others),
        certainties=tuple(
            (head, placed(most), placed(least)) for head, (most, least) in certainties
        ),
        differences=tuple(replace(found, pictures=placed(found.pictures)) for found in differences),
        errors=tuple(replace(found, examples=paths(found.examples)) for found in errors),
        thumbnails=html.pictures(
            tables.images, [row for found in shown for row in files.get(found, [])]
        ),
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


def _placed(picture: Picture, files: list[Row]) -> Picture:
    """A picture with the first of the files of its image, and their one label."""
    if not files:
        return picture
    labels = {file["label"] for file in files} - {None}
    folder = labels.pop() if len(labels) == 1 else None
    return replace(picture, path=files[0]["path"], folder=folder)


def _most_frequent(versions: Iterable[VersionCounts]) -> tuple[tuple[str | None, ...], int]:
    """The labels that get a row, the most frequent first, and how many more there are."""
    total: Counter[str | None] = Counter()
    for found in versions:
        total.update(found.labels)
    order = sorted(total, key=lambda label: (-total[label], label is None, label or ""))
    return tuple(order[:LABELS]), len(order[LABELS:])
