"""Counts and pending images: from what was added since, they are those of a whole count."""

import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import deltalake
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlproject.lake import commits, location, queries, rewrites, snapshots
from mlproject.lake.schemas import SCHEMAS
from mlproject.scoring import coverage, micro_batches
from tests.conftest import THOROUGH
from tests.support.lakes import add_predictions, commit_predictions, image_id, version

VERSIONS = [version(1), version(2)]
# The same name and number with another model: its version was deleted and made anew.
AGAIN = version(1, "m-again")
ERROR = "model_failed"

numbers = st.lists(st.integers(0, 25), min_size=1, max_size=6)
which = st.sampled_from([0, 1])
STEPS = st.one_of(
    st.tuples(st.just("ingest"), numbers, st.integers(-3, 3)),
    st.tuples(st.just("score"), which, st.integers(1, 6), st.booleans()),
    st.tuples(st.just("score"), which, st.just(100), st.just(False)),
    st.tuples(st.just("count"), which),
    st.tuples(st.just("erase"), st.integers(0, 25), st.booleans()),
    st.tuples(st.just("compact"), st.sampled_from(["images", "predictions"])),
    st.tuples(st.just("other model"), st.integers(0, 25)),
    st.tuples(st.just("foreign"), which),
)


class Lake:
    """A lake on which steps are taken, and what table `rollouts` would know of its versions."""

    def __init__(self, folder):
        self.path = location.locate_to_write(str(folder))
        self.known, self.complete = {}, {}
        self.now = datetime(2026, 1, 1, tzinfo=UTC)
        self.files = 0
        snapshots.to_append(self.path, "images", "ingest")

    def ingest(self, contents, late_s):
        """Adds files, some with bytes that are there already; a clock may be off."""
        self.now += timedelta(seconds=2)
        at = self.now - timedelta(seconds=late_s)
        rows = []
        for number in contents:
            self.files += 1
            row = {"path": f"/{self.files:04}.jpg", "image_id": image_id(number)}
            rows.append({**row, "size_bytes": 1000 + number, "modified_at": at, "ingested_at": at})
        table = pa.Table.from_pylist(rows, schema=SCHEMAS["images"])
        assert commits.append_rows(table, snapshots.to_append(self.path, "images", "ingest"))

    def score(self, place, most, fails):
        """Adds predictions of the oldest pending images."""
        who = VERSIONS[place]
        commit_predictions(self.path, who, self.pending(who)[:most], ERROR if fails else None)

    def count(self, place):
        """Notes the counts, as a row of `rollouts`."""
        who = VERSIONS[place]
        found = coverage.count(coverage.newest_tables(self.path), who, self.known.get(who))
        self.known[who] = found
        if not found.missing:
            self.complete[who] = found

    def erase(self, number, is_killed):
        """Removes an image; one that is killed leaves its predictions."""
        for table in ("images", "predictions")[: 1 if is_killed else 2]:
            if snapshots.is_table(f"{self.path}/{table}"):
                rewrites.erase_rows(f"{self.path}/{table}", [image_id(number)], no_spark)

    def compact(self, table):
        if snapshots.is_table(f"{self.path}/{table}"):
            rewrites.compact(f"{self.path}/{table}", 1024**2, 1024**2, no_spark)

    def other_model(self, number):
        commit_predictions(self.path, AGAIN, [image_id(number)])

    def foreign(self, place):
        """One pending image predicted by another program, whose log entry has other statistics."""
        add_predictions(self.path, VERSIONS[place], self.pending(VERSIONS[place])[:1])

    def pending(self, who):
        tables = coverage.newest_tables(self.path)
        found = [
            micro_batches.pending_images(who, tables, part)["image_id"].to_pylist()
            for part in micro_batches.parts(tables.images)
        ]
        return [one for part in found for one in part]

    def check(self):
        tables = coverage.newest_tables(self.path)
        for who in VERSIONS:
            whole = coverage.count_all(tables, who)
            assert whole == coverage.count(tables, who, self.known.get(who))
            assert whole.missing == len(self.pending(who))
            complete = self.complete.get(who)
            since = coverage.complete_up_to(tables, who, complete)
            found = [
                micro_batches.pending_images(who, tables, part)["image_id"].to_pylist()
                for part in micro_batches.parts(tables.images, since)
            ]
            assert self.pending(who) == [one for part in found for one in part]
            found = micro_batches.pending_bytes(who, tables, complete)
            assert sum(self.size(one) for one in self.pending(who)) == found

    def size(self, one):
        return next(1000 + number for number in range(26) if image_id(number) == one)


def no_spark():
    raise AssertionError("little is rewritten without Spark")


@pytest.fixture(scope="module")
def small_parts():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(micro_batches, "PART_ROWS", 4)
        patch.setattr(queries, "JOINED_ROWS", 3)
        yield


@given(st.lists(STEPS, min_size=3, max_size=14))
@settings(max_examples=100 if THOROUGH else 10, deadline=None)
def test_counts_and_pending_images_are_those_of_a_whole_count(tmp_path_factory, small_parts, steps):
    lake = Lake(tmp_path_factory.mktemp("lake"))
    for name, *words in [("ingest", [1, 2], 0), ("score", 0, 100, False), ("count", 0), *steps]:
        getattr(lake, name.replace(" ", "_"))(*words)
        lake.check()


@pytest.mark.parametrize(
    ("before", "expected"), [(None, (20, 19, 7, 0)), (VERSIONS[1], (15, 15, 3, 0))]
)
def test_errors_are_counted_however_few_ids_are_joined_at_once(
    tmp_path, monkeypatch, before, expected
):
    lake = Lake(tmp_path / "lake")
    lake.ingest(range(20), 0)
    for who, good, bad in ((VERSIONS[0], 12, 7), (VERSIONS[1], 15, 3)):
        ids = [image_id(number) for number in range(good + bad)]
        commit_predictions(lake.path, who, ids[:good])
        commit_predictions(lake.path, who, ids[good:], ERROR)
    for joined in (1_000, 3):
        monkeypatch.setattr(queries, "JOINED_ROWS", joined)
        found = coverage.count_errors(coverage.newest_tables(lake.path), VERSIONS[0], before)
        assert coverage.ErrorCounts(*expected) == found


@pytest.fixture
def counted(tmp_path):
    """A lake with two images that version 0 has predicted and counted."""
    lake = Lake(tmp_path / "lake")
    lake.ingest([1, 2], 0)
    lake.score(0, 100, False)
    lake.count(0)
    return lake


@pytest.fixture
def no_whole_count(monkeypatch):
    """A whole count, and a search among all images, fail the test."""
    monkeypatch.delattr(coverage, "count_all")


def now(lake):
    return coverage.count(coverage.newest_tables(lake.path), VERSIONS[0], lake.known[VERSIONS[0]])


def test_images_that_were_there_before_are_not_counted_again(counted, no_whole_count):
    counted.ingest([2, 3, 3], 60)  # a clock that is late
    assert (3, 2, 0) == now(counted).counts
    counted.score(0, 100, True)
    assert (3, 3, 1) == now(counted).counts


def test_small_files_that_were_put_together_are_no_news(counted, no_whole_count):
    counted.ingest([3], 0)
    counted.compact("images")
    counted.score(0, 100, False)
    counted.compact("predictions")
    assert (3, 3, 0) == now(counted).counts


def test_only_parts_with_new_images_are_searched(counted):
    tables = coverage.newest_tables(counted.path)
    since = coverage.complete_up_to(tables, VERSIONS[0], counted.complete[VERSIONS[0]])
    assert [] == micro_batches.parts(tables.images, since)
    assert 1 == len(micro_batches.parts(tables.images))


def remove_entry(lake):
    counted, images = lake.known[VERSIONS[0]], f"{lake.path}/images"
    lake.ingest([3], 0)
    lake.ingest([4], 0)
    deltalake.DeltaTable(images).create_checkpoint()
    entry = f"{images}/_delta_log/{counted.images_version + 1:020}.json"
    Path(entry).unlink()


def make_anew(lake):
    shutil.rmtree(f"{lake.path}/images")
    for number in range(4):
        lake.ingest([number], 0)


def predict_elsewhere(lake):
    lake.ingest([3], 0)
    lake.foreign(0)


def delete_a_row(lake):
    deltalake.DeltaTable(f"{lake.path}/predictions").delete(f"image_id = '{image_id(1)}'")


@pytest.mark.parametrize("change", [remove_entry, make_anew, predict_elsewhere, delete_a_row])
def test_every_id_is_counted_where_the_logs_do_not_tell(counted, monkeypatch, change):
    change(counted)
    whole, calls = coverage.count_all, []
    monkeypatch.setattr(coverage, "count_all", lambda *words: calls.append(1) or whole(*words))
    counted.check()
    assert 4 == len(calls)  # two versions, by the check and by `count`
