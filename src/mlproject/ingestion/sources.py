"""Sources: the settings that each keeps, and what its last listing found. See decision 28."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Literal
from urllib.parse import parse_qsl

import pyarrow as pa

from mlproject.errors import UserError, require_at_least
from mlproject.ingestion import labels, source_cleaning, source_listing
from mlproject.ingestion.known_files import bounds, within
from mlproject.lake import commits, maintenance, snapshots
from mlproject.lake.location import locate
from mlproject.lake.queries import query, quoted
from mlproject.lake.schemas import SCHEMAS
from mlproject.lake.snapshots import Snapshot
from mlproject.storage import object_storage

# Of a source, and so of each ingest after the one that named them. The others are of one ingest:
# they take files away, or bring back what was erased.
KEPT = (
    *("include", "exclude", "settle", "labels", "content", "max_inline_bytes", "thumbnail_px"),
    *("max_files", "max_bytes", "target_file_bytes", "on_missing"),
)
LISTED_EVERY = timedelta(minutes=10)  # a listing that found nothing new is noted as often
_NEWEST = """SELECT * FROM (
  SELECT *, row_number() OVER (PARTITION BY uri ORDER BY number DESC) AS place FROM sources
) AS ranked WHERE place = 1 ORDER BY uri"""


@dataclass(frozen=True, slots=True)
class IngestSettings:
    """How the files of a source become rows: the options of `ingest` under their names."""

    include: str = source_listing.SUFFIXES
    exclude: str = source_listing.NONE
    settle: float = 2
    labels: str = labels.FOLDER
    content: Literal["inline", "reference", "auto"] = "inline"
    """With `auto` no file has its bytes in the table when they are larger than 100 MB on average.
    Those of a file above 100 MB never do."""
    max_inline_bytes: int = 32 * 1024**2
    thumbnail_px: int = 0
    max_files: int = 10_000
    """Files in one commit: tens of seconds of work on two cores."""
    max_bytes: int = 1024**3
    """Bytes in one commit; a file above it has a commit of its own."""
    target_file_bytes: int = maintenance.TARGET_FILE_BYTES
    on_missing: Literal["keep", "mark"] = "keep"
    clean_source: Literal["keep", "move", "delete"] = "keep"
    clean_to: str = ""
    clean_after: float = 30
    include_erased: bool = False


@dataclass(frozen=True, slots=True)
class Source:
    """A source that was ingested into a lake."""

    uri: str
    """Its folder, as the paths of its images begin."""
    settings: dict[str, Any]
    """The options of `ingest` that it keeps; those that nobody gave have their defaults."""
    since: datetime
    """Since when it keeps these."""
    listed_at: datetime | None = None
    """When it was last seen to be listed, at most ten minutes off; None = no ingest has ended."""
    files: int | None = None
    """Image files that were in it then."""
    backlog: int | None = None
    """Files among them that were new or changed, and could not be ingested."""
    images: int = 0
    """Rows of `images` that are below it."""


def sources(lake: str = "lake") -> tuple[Source, ...]:
    """The sources of a lake: what was ingested, with which settings, and what waits there.

    Args:
        lake: Folder or URI of the tables.

    Raises:
        UserError: There is no lake, or no source was ingested.
    """
    lake = locate(lake)
    at = snapshots.required(lake, "sources")
    found = map(_source, query(lake, _NEWEST, sources=at).to_pylist())
    return tuple(replace(one, images=count_images(lake, one.uri)) for one in found)


def uri_of(source: str) -> str:
    """The folder of a source, without the settings of its server: an absolute path, or a URI."""
    root, prefix = object_storage.open_source(object_storage.with_server(source))
    return f"{prefix}{root}"


def read(lake: str, uri: str, at: Snapshot | None = None) -> Source | None:
    """A source as it was recorded last, without its images; None = never. The lake may be absent.

    `at` is the version of `sources` that is read; None = the newest.
    """
    sql = f"SELECT * FROM sources WHERE uri = {quoted(uri)} ORDER BY number DESC LIMIT 1"
    rows = query(lake, sql, ["sources"], sources=at).to_pylist()
    return _source(rows[0]) if rows else None


def effective(kept: Source | None, given: Mapping[str, Any]) -> IngestSettings:
    """The settings of an ingest: those that are given, else those that the source keeps."""
    known = {field.name for field in fields(IngestSettings)}  # a later release may have more
    mine = {name: value for name, value in kept.settings.items() if name in known} if kept else {}
    return IngestSettings(**{**mine, **given})


def settled(
    lake: str, source: str, given: Mapping[str, Any]
) -> tuple[IngestSettings, Source | None]:
    """The settings of an ingest: those that are given, else those that the source keeps.

    With them the source as it is recorded, if it is.

    Raises:
        UserError: They are out of range, contradict each other, or do not fit the source.
    """
    kept = read(lake, uri_of(source))
    settings = effective(kept, given)
    at_least_1 = ("max_files", "max_bytes", "target_file_bytes")
    at_least_0 = ("settle", "thumbnail_px", "clean_after")
    for least, names in ((1, at_least_1), (0, at_least_0)):
        require_at_least(least, **{name: getattr(settings, name) for name in names})
    if settings.clean_source != "keep" and settings.on_missing == "mark":
        raise UserError(
            f"clean_source={settings.clean_source} and on_missing=mark, given or kept by the "
            "source, do not go together: cleaned files would be marked as gone. Name "
            "on_missing=keep"
        )
    if settings.content != "inline" and _has_own_settings(source):
        raise UserError(
            f"content={settings.content}: such rows are read again at their paths, which have no "
            "settings. Set them in the environment, as AWS_ENDPOINT_URL, AWS_REGION, "
            "AWS_SKIP_SIGNATURE or AWS_REQUEST_PAYER, and not after the ? of the source"
        )
    if settings.clean_source != "keep":
        source_cleaning.check(source, lake, settings.clean_source, settings.clean_to)
    labels.pattern(settings.labels)
    for name in ("include", "exclude"):
        source_listing.chosen(name, getattr(settings, name))
    return settings, kept


def _has_own_settings(source: str) -> bool:
    """Whether a source in S3 has other settings behind its "?" than the environment."""
    bare, _, settings = source.partition("?")
    if not (settings and object_storage.is_s3(source)):
        return False
    given = object_storage.with_server(source)
    region = dict(parse_qsl(given.partition("?")[2]))["region"]  # Amazon is not asked for it
    return given != object_storage.with_server(f"{bare}?region={region}")


def keep(
    lake: str, uri: str, given: Mapping[str, Any], kept: Source | None
) -> tuple[bool, tuple[str, ...]]:
    """Records the settings that are given for a source, if it does not keep them already.

    `kept` is the source as it was read before.

    Returns:
        Whether they were recorded, and a sentence for each that was another one before.
    """
    wanted = {name: value for name, value in given.items() if name in KEPT}
    while kept is None or {**kept.settings, **wanted} != kept.settings:
        since = snapshots.to_append(lake, "sources", "sources")
        before = read(lake, uri, since)
        settings = {**(before.settings if before else {}), **wanted}
        if before and settings == before.settings:
            break  # another ingest has recorded them just now
        now = datetime.now(UTC)
        if _append(replace(before or Source(uri, {}, now), settings=settings, since=now), since):
            return True, _news(before, wanted) if before else _unknown(lake, uri, wanted)
        kept = before
    return False, ()


def _news(before: Source, wanted: Mapping[str, Any]) -> tuple[str, ...]:
    was = {name: before.settings.get(name, getattr(IngestSettings(), name)) for name in wanted}
    return tuple(
        f"{name} is {value} from now on for {before.uri}, it was {was[name]}"
        for name, value in wanted.items()
        if value != was[name]
    )


def _unknown(lake: str, uri: str, wanted: Mapping[str, Any]) -> tuple[str, ...]:
    """A sentence about a source that an older release has ingested, with settings nobody knows."""
    if wanted or not count_images(lake, uri):
        return ()
    return (
        f"{uri} was ingested by a release that kept no settings, so the defaults hold from now on. "
        "If it had others, run ingest once with them",
    )


def note_listing(
    lake: str, uri: str, files: int, backlog: int, kept: Source | None, *, changed: bool
) -> None:
    """Records what the listing of a source found, unless it was noted just now and is the same.

    `kept` is the source as it was read before.
    """
    now = datetime.now(UTC)
    is_recent = kept and kept.listed_at and abs(now - kept.listed_at) < LISTED_EVERY
    if kept and is_recent and not changed and (files, backlog) == (kept.files, kept.backlog):
        return
    while True:
        since = snapshots.to_append(lake, "sources", "sources")
        newest = read(lake, uri, since) or Source(uri, {}, now)
        if _append(replace(newest, listed_at=now, files=files, backlog=backlog), since):
            return


def _source(row: Mapping[str, Any]) -> Source:
    settings = json.loads(row["settings"])
    return Source(
        row["uri"], settings, row["since"], row["listed_at"], row["files"], row["backlog"]
    )


def _append(source: Source, since: Snapshot) -> Snapshot | None:
    row = {
        "uri": source.uri,
        "settings": json.dumps(source.settings, ensure_ascii=False, sort_keys=True),
        "since": source.since,
        "listed_at": source.listed_at,
        "files": source.files,
        "backlog": source.backlog,
        "number": since.fills + 1,  # of the commit, if it succeeds: no clock orders the rows
    }
    return commits.append_rows(pa.Table.from_pylist([row], SCHEMAS["sources"]), since)


def count_images(lake: str, uri: str) -> int:
    """Rows of `images` below a folder. The lake may be absent."""
    sql = f"SELECT count(*) AS n FROM images WHERE {within(*bounds(uri))}"
    return int(query(lake, sql, ["images"])["n"][0].as_py())
