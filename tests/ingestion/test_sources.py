"""A source keeps its settings, without Spark: what is recorded, used again and told."""

import threading
from dataclasses import asdict
from datetime import UTC, datetime

import pytest

import mlproject
from mlproject.commands import parameters
from mlproject.errors import UserError
from mlproject.ingestion import sources
from mlproject.ingestion.sources import IngestSettings, Source
from mlproject.lake import snapshots
from tests.support.lakes import add, add_images, day

PHOTOS = "/photos"
GIVEN = {"labels": "([a-z]+)_", "content": "reference", "thumbnail_px": 64, "include": "*"}


def keep(lake, uri=PHOTOS, **given):
    return sources.keep(lake, uri, given, sources.read(lake, uri))


def settings(lake, uri=PHOTOS, **given):
    return sources.effective(sources.read(lake, uri), given)


def listed(lake, files, backlog, uri=PHOTOS, *, changed=False):
    kept = sources.read(lake, uri)
    sources.note_listing(lake, uri, files, backlog, kept, changed=changed)


def test_a_source_without_a_record_has_the_defaults(lake):
    assert IngestSettings() == settings(lake)
    assert (True, ()) == keep(lake)
    assert IngestSettings() == settings(lake)


def test_settings_are_used_again_and_each_source_has_its_own(lake):
    assert (True, ()) == keep(lake, **GIVEN)
    assert IngestSettings(**GIVEN) == settings(lake)
    for other in ("/photo", "/photos/daisy", "s3://bucket/photos", "/phötos's"):
        assert IngestSettings() == settings(lake, other)
    keep(lake, "/phötos's", labels="'(ü+)")
    assert IngestSettings(labels="'(ü+)") == settings(lake, "/phötos's")
    assert IngestSettings(**GIVEN) == settings(lake)


def test_another_value_is_told_and_holds_from_then_on(lake):
    keep(lake, **GIVEN)
    news, told = keep(lake, thumbnail_px=0, settle=5, content="reference")
    assert news
    assert (
        "thumbnail_px is 0 from now on for /photos, it was 64",
        "settle is 5 from now on for /photos, it was 2",
    ) == told
    assert IngestSettings(**{**GIVEN, "thumbnail_px": 0, "settle": 5}) == settings(lake)


def test_a_value_that_is_kept_already_is_recorded_no_more(lake):
    keep(lake, **GIVEN)
    before = snapshots.required(lake, "sources").version
    assert (False, ()) == keep(lake, **GIVEN)
    assert (False, ()) == keep(lake)
    assert before == snapshots.required(lake, "sources").version


def test_a_default_that_is_given_is_kept_though_it_changes_nothing(lake):
    keep(lake)
    assert (True, ()) == keep(lake, thumbnail_px=0)
    assert {"thumbnail_px": 0} == sources.read(lake, PHOTOS).settings


def test_what_removes_files_or_brings_back_erased_ones_is_of_one_ingest(lake):
    once = {"clean_source": "move", "clean_to": "/old", "clean_after": 1, "include_erased": True}
    assert {*asdict(IngestSettings())} == {*sources.KEPT, *once}
    assert IngestSettings(**once) == settings(lake, **once)
    keep(lake, **once, settle=0)
    assert IngestSettings(settle=0) == settings(lake)


def test_writers_at_once_lose_no_setting(lake):
    keep(lake)
    begin = threading.Barrier(4)
    names = ("settle", "thumbnail_px", "max_files", "max_bytes")

    def run(name):
        begin.wait()
        keep(lake, **{name: 7})

    threads = [threading.Thread(target=run, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert dict.fromkeys(names, 7) == sources.read(lake, PHOTOS).settings


def test_a_clock_that_goes_back_hides_no_setting(lake, monkeypatch):
    keep(lake, settle=1)

    class Earlier(datetime):
        @classmethod
        def now(cls, tz=None):
            return day(1)

    monkeypatch.setattr(sources, "datetime", Earlier)
    keep(lake, settle=3)
    assert 3 == settings(lake).settle


def test_a_setting_of_a_later_release_is_left_as_it_is(lake):
    row = {"uri": PHOTOS, "settings": '{"colour": "grey", "settle": 4}', "since": day(1)}
    add(lake, "sources", {**row, "number": -1})
    assert IngestSettings(settle=4) == settings(lake)
    keep(lake, settle=5)
    assert {"colour": "grey", "settle": 5} == sources.read(lake, PHOTOS).settings


@pytest.mark.parametrize(("given", "is_told"), [({}, True), ({"settle": 0}, False)])
def test_a_source_of_an_older_release_is_told_to_have_the_defaults(lake, given, is_told):
    add_images(lake, range(3))
    news, told = keep(lake, **given)
    assert news
    found = [line for line in told if "by a release that kept no settings" in line]
    assert is_told == bool(found)
    assert (False, ()) == keep(lake)


def test_a_listing_is_noted_when_it_found_news_or_the_last_note_is_old(lake, monkeypatch):
    keep(lake, settle=0)
    listed(lake, 3, 0)
    noted = snapshots.required(lake, "sources").version
    listed(lake, 3, 0)
    assert noted == snapshots.required(lake, "sources").version
    for files, backlog, changed in ((3, 0, True), (4, 0, False), (4, 1, False)):
        listed(lake, files, backlog, changed=changed)
        noted += 1
        assert noted == snapshots.required(lake, "sources").version
    monkeypatch.setattr(sources, "LISTED_EVERY", sources.LISTED_EVERY * 0)
    listed(lake, 4, 1)
    assert noted + 1 == snapshots.required(lake, "sources").version
    assert {"settle": 0} == sources.read(lake, PHOTOS).settings


def test_sources_are_listed_with_their_images(lake):
    add_images(lake, range(3))
    keep(lake, settle=1)
    listed(lake, 5, 2)
    keep(lake, "/photos/daisy")
    first, second = mlproject.sources(lake)
    assert (first.uri, first.settings, first.images) == (PHOTOS, {"settle": 1}, 3)
    assert (first.files, first.backlog) == (5, 2)
    assert first.listed_at and abs(datetime.now(UTC) - first.listed_at).total_seconds() < 60
    assert Source("/photos/daisy", {}, second.since) == second


def test_a_lake_that_ingested_nothing_says_what_to_run(lake):
    with pytest.raises(UserError, match=r"There is no table '.*/sources' yet\. Run: mlflow run"):
        mlproject.sources(lake)


def test_a_source_that_is_not_there_leaves_no_record(lake, store, tmp_path):
    with pytest.raises(UserError, match="is not a folder"):
        mlproject.ingest(str(tmp_path / "mistyped"), lake=lake, settle=0)
    assert not snapshots.is_table(f"{lake}/sources")


def test_the_help_of_ingest_tells_the_defaults():
    texts = parameters.descriptions(mlproject.ingest)
    for name in sources.KEPT:
        default = getattr(IngestSettings(), name)
        assert texts[name].endswith(f" Default: {default}"), name
