"""What the versions say about the images of a lake: facts gathered by Spark, told in one HTML page.

Everything is read from one Delta version of each table. Only counts and a few hundred chosen rows
come to the driver, and no photo: thumbnails are made in tasks.
"""

import time
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass

from delta.tables import DeltaTable
from pyspark.sql import DataFrame, SparkSession

from mlproject.inference import ERRORS
from mlproject.lake import location, spark_tables
from mlproject.reporting import html, report_queries
from mlproject.reporting.report_queries import (
    Answers,
    Difference,
    ErrorCount,
    Images,
    Picture,
    bare,
)
from mlproject.rollout import ledger
from mlproject.versions.registry import Version

READ = ("path", "image_id", "label", "error", "ingested_at")  # of images: all but the content
COLUMNS = 8  # versions side by side, at most: more do not fit a page
LABELS = 30  # labels counted one by one; the others are told in one line
SHOWN = 6  # versions, and pairs of versions, with pictures, at most: a page of about 1 MB


@dataclass(frozen=True, slots=True)
class Reader:
    """What readers of one pointer see."""

    pointer: str
    """The pointer as a URI."""
    serving: ledger.Entry | None
    """The last `serving` row; None = readers see nothing yet."""
    answered: int
    """Images of the table of images that the serving version was shown."""


@dataclass(frozen=True, slots=True)
class Certain:
    """The images of which one version is most and least certain."""

    version: Version
    """The version that answered."""
    most: tuple[Picture, ...]
    """Highest scores first."""
    least: tuple[Picture, ...]
    """Lowest scores first."""


@dataclass(frozen=True, slots=True)
class Labels:
    """The labels that the versions side by side gave most."""

    shown: tuple[str | None, ...]
    """Most frequent first; None is an answer without a label."""
    others: int
    """Labels that were given too, and are not shown."""
    folders: Mapping[str, int]
    """Label -> images in folders of that name."""


@dataclass(frozen=True, slots=True)
class Facts:
    """All that a report tells."""

    lake: str
    """The folder or URI of the tables."""
    made_at: int
    """When the tables were read, microseconds since 1970."""
    table_versions: Mapping[str, int | None]
    """Table -> the Delta version that was read; None = there is no such table yet."""
    images: Images
    """Counts of the table of images."""
    readers: tuple[Reader, ...]
    """One a pointer, by name."""
    versions: tuple[Answers, ...]
    """Every version that answered anything, by name, number and time."""
    columns: tuple[Version, ...]
    """The versions that stand side by side: those that serve, and those scored last."""
    labels: Labels
    """What stands in the rows beside these columns."""
    certain: tuple[Certain, ...]
    """One for each version whose pictures are shown."""
    differences: tuple[Difference, ...]
    """One for each model of which two versions answered, and which is shown."""
    errors: tuple[ErrorCount, ...]
    """One for each code that occurs."""
    thumbnails: Mapping[str, bytes]
    """image_id -> JPEG, for those pictures that can be decoded."""

    def answers(self, version: Version) -> Answers | None:
        """What a version answered; None when it answered nothing."""
        wanted = bare(version)
        return next((found for found in self.versions if found.version == wanted), None)

    def pointers(self, version: Version) -> list[str]:
        """The pointers whose readers see a version."""
        return [
            reader.pointer
            for reader in self.readers
            if reader.serving and bare(reader.serving.version) == bare(version)
        ]

    def name(self, version: Version) -> str:
        """A version in words; with its model id where name and number stand for several."""
        known = {bare(answers.version) for answers in self.versions}
        known |= {bare(reader.serving.version) for reader in self.readers if reader.serving}
        same = [found for found in known if found.uri == version.uri]
        words = f"{version.name} {version.version}"
        return f"{words} ({version.model_id})" if len(same) > 1 else words


def collect(spark: SparkSession, lake: str) -> Facts:
    """Gathers the facts of a report from one pinned version of each table.

    Args:
        spark: A session with Delta.
        lake: The folder or URI of the tables.

    Raises:
        UserError: There is no table of images, or a table has other columns than this project's.
    """
    lake = location.locate(lake)
    made_at = time.time_ns() // 1000
    # In this order: what the ledger names is in the tables that are pinned after it.
    page = ledger.read(lake)
    predictions, predictions_version = _read(spark, lake, "predictions")
    pinned = spark_tables.snapshot(spark, lake, "images")
    with ExitStack() as stack:

        def keep(frame: DataFrame) -> DataFrame:
            stack.callback(frame.unpersist)
            return frame.persist()

        images = keep(pinned.read(spark).select(*READ))
        said = keep(report_queries.said(images, predictions))
        versions = report_queries.count_answers(said)
        readers = tuple(_reader(page, name, versions) for name in page.pointers())
        heads = _heads(versions, [reader.serving for reader in readers if reader.serving])
        columns = _columns(versions, heads)
        counts = report_queries.count_images(images)
        labels = _labels(images, [found for found in versions if found.version in columns])
        certain = tuple(
            Certain(head, *report_queries.extremes(said, head)) for head in heads[:SHOWN]
        )
        pairs = _pairs(versions, heads)[:SHOWN]
        differences = tuple(report_queries.difference(said, *pair) for pair in pairs)
        errors = report_queries.count_errors(images, said)
    shown = [picture for found in certain for picture in (*found.most, *found.least)]
    shown += [picture for found in differences for picture in found.pictures]
    chosen = {
        picture.image_id: (picture.path, picture.ingested_at)
        for picture in shown
        if picture.path is not None and picture.ingested_at is not None
    }
    return Facts(
        lake,
        made_at,
        {
            "images": pinned.version,
            "predictions": predictions_version,
            "rollouts": page.since.version if page.since else None,
        },
        counts,
        readers,
        versions,
        columns,
        labels,
        certain,
        differences,
        errors,
        html.pictures(pinned.read(spark), chosen),
    )


def render(facts: Facts) -> str:
    """The report as one HTML page that asks nothing of any other file or server."""
    return html.render("report.html.j2", facts.thumbnails, facts=facts, meanings=ERRORS)


def _read(spark: SparkSession, lake: str, table: str) -> tuple[DataFrame, int | None]:
    """A table's rows and version; no rows and None where no verb has made it yet."""
    if not DeltaTable.isDeltaTable(spark, f"{lake}/{table}"):
        return spark.createDataFrame([], spark_tables.schema(table)), None
    pinned = spark_tables.snapshot(spark, lake, table)
    return pinned.read(spark), pinned.version


def _reader(page: ledger.Page, pointer: str, versions: Iterable[Answers]) -> Reader:
    now = page.serving(pointer)
    answered = (found.known for found in versions if now and found.version == bare(now.version))
    return Reader(pointer, now, next(answered, 0))


def _heads(versions: Iterable[Answers], serving: Iterable[ledger.Entry]) -> list[Version]:
    """The versions of interest: those that serve, last switched first, then the newest others.

    Newest means scored last; of a model that serves no pointer it is the only one.
    """
    known = {found.version for found in versions}
    switched = sorted(serving, key=lambda now: now.at, reverse=True)
    heads = dict.fromkeys(bare(now.version) for now in switched if bare(now.version) in known)
    names = {head.name for head in heads}
    for found in sorted(versions, key=lambda found: -found.last_at):
        if found.version.name not in names:
            names.add(found.version.name)
            heads[found.version] = None
    return list(heads)


def _columns(versions: tuple[Answers, ...], heads: list[Version]) -> tuple[Version, ...]:
    """As many versions as fit side by side, in the order of `versions`."""
    newest = [found.version for found in sorted(versions, key=lambda found: -found.last_at)]
    chosen = list(dict.fromkeys([*heads, *newest]))[:COLUMNS]
    return tuple(found.version for found in versions if found.version in chosen)


def _pairs(versions: Iterable[Answers], heads: list[Version]) -> list[tuple[Version, Version]]:
    """For each model its first head and the other version that was scored last."""
    firsts = {head.name: head for head in reversed(heads)}
    pairs = []
    for name in dict.fromkeys(head.name for head in heads):
        mine = [found for found in versions if found.version.name == name]
        others = [found for found in mine if found.version != firsts[name]]
        if others:
            other = max(others, key=lambda found: found.last_at).version
            pairs.append((firsts[name], other))
    return pairs


def _labels(images: DataFrame, versions: list[Answers]) -> Labels:
    total: Counter[str | None] = Counter()
    for found in versions:
        total.update(found.labels)
    order = sorted(total, key=lambda label: (-total[label], label is None, label or ""))
    shown = tuple(order[:LABELS])
    named = [label for label in shown if label is not None]
    folders = report_queries.count_folders(images, named) if named else {}
    return Labels(shown, len(order) - len(shown), folders)
