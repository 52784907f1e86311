"""Pending images and their division, without Spark."""

import pyarrow as pa
import pytest

from mlproject.lake.schemas import TIME
from mlproject.scoring import coverage
from mlproject.scoring.micro_batches import EVERY, divide, oldest, pending_images
from tests.support.lakes import add, add_images, add_predictions, day, image_id, version


def table(*commits: tuple[int, ...]) -> pa.Table:
    """Pending images: the sizes of those of each ingest commit."""
    rows = [
        {"image_id": f"{at}/{place}", "ingested_at": day(at), "path": "", "size_bytes": size}
        for at, sizes in enumerate(commits, start=1)
        for place, size in enumerate(sizes)
    ]
    types = (pa.string(), TIME, pa.string(), pa.int64())
    names = ("image_id", "ingested_at", "path", "size_bytes")
    return pa.Table.from_pylist(rows, pa.schema(list(zip(names, types, strict=True))))


@pytest.mark.parametrize(
    ("commits", "parts"),
    [
        ((), []),
        (((5,),), [1]),
        (((5, 5), (5,), (5, 5)), [5]),  # 5 images, 25 bytes
        (((5,) * 4, (5,) * 4, (5,)), [4, 5]),  # at most 5 images
        (((5,) * 12,), [4, 4, 4]),  # slices of one commit
        (((5,), (5,) * 12, (5,)), [1, 4, 4, 4, 1]),
        (((30, 30), (30,)), [1, 1, 1]),  # at most 50 bytes
        (((0, 0), (0,)), [3]),
    ],
)
def test_commits_stay_whole_within_the_limits_and_each_image_comes_once(commits, parts):
    pending = table(*commits)
    found = divide(pending, 5, 50)
    assert parts == [batch.images for batch in found]
    bounds = [(batch.start, batch.stop) for batch in found]
    assert [0, *(stop for _, stop in bounds)] == [*(start for start, _ in bounds), len(pending)]


def test_halving_a_micro_batch_comes_to_each_image_once():
    (whole,) = left = divide(table((1,) * 6), 100, 10**9)
    found = []
    while left:
        halves = left.pop().halves()
        assert all(whole.contains(half) for half in halves)
        if len(halves) == 1:
            found.append(halves[0].start)
            assert not any(halves[0].contains(other) for other in left)
        left += halves if len(halves) > 1 else []
    assert list(range(6)) == sorted(found)


@pytest.mark.parametrize(
    ("images", "size", "count"),
    [(0, 0, 6), (4, 0, 4), (9, 0, 6), (0, 25, 2), (0, 30, 3), (0, 5, 1), (1, 30, 1), (0, 99, 6)],
)
def test_the_oldest_images_come_within_both_limits_and_one_at_least(images, size, count):
    pending = table((10, 10, 10), (10, 10, 10))
    found = oldest(pending, images, size)
    assert pending.slice(0, count).equals(found)


def test_pending_are_the_images_that_this_very_version_lacks_oldest_first(lake):
    mine, other, remade = version(1), version(2), version(1, "m-remade")
    add_images(lake, [1, 2], ingested_at=day(2))
    add_images(lake, [3], ingested_at=day(1))
    copy = {"path": "/a/copy.jpg", "image_id": image_id(1), "size_bytes": 1000}
    add(lake, "images", {**copy, "ingested_at": day(3)})
    add(lake, "predictions")

    def found(who, only=None):
        return pending_images(who, coverage.newest_tables(lake), EVERY, only)

    every = found(mine)
    assert [image_id(number) for number in (3, 1, 2)] == every["image_id"].to_pylist()
    assert ["/photos/003.jpg", "/photos/001.jpg", "/photos/002.jpg"] == every["path"].to_pylist()
    add_predictions(lake, mine, [image_id(1)])
    add_predictions(lake, other, [image_id(2)])
    assert [image_id(3), image_id(2)] == found(mine)["image_id"].to_pylist()
    assert 3 == found(remade).num_rows
    assert [image_id(2)] == found(mine, [image_id(2), image_id(1), "none"])["image_id"].to_pylist()
    assert 0 == found(mine, []).num_rows


def test_what_was_added_after_the_pinned_versions_is_not_seen(lake):
    add_images(lake, [1])
    add(lake, "predictions")
    tables = coverage.newest_tables(lake)
    add_images(lake, [2])
    add_predictions(lake, version(1), [image_id(1)])
    assert [image_id(1)] == pending_images(version(1), tables, EVERY)["image_id"].to_pylist()
