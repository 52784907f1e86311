"""Several scorers of one version at once: every image once, and little computed twice."""

import pytest

from mlproject.lake import snapshots
from mlproject.scoring import scorer
from mlproject.scoring.batch_scoring import Settings
from mlproject.scoring.micro_batches import MicroBatch, in_order
from tests.support.lakes import add_images, image_id, predicted_by
from tests.support.versions import register_colours

pytestmark = pytest.mark.spark

IMAGES, BATCH = 30, 5


@pytest.fixture(scope="module")
def version(store):
    return register_colours("two-scorers")


@pytest.fixture
def filled(lake):
    add_images(lake, range(IMAGES))
    return lake


def score(spark, lake, version, stop=lambda: False, **limits):
    settings = Settings(batch_images=BATCH, **limits)
    return scorer.score_pending(spark, lake, version, settings=settings, stop=stop)


def require_each_once(lake, version):
    assert {image_id(number) for number in range(IMAGES)} == predicted_by(lake, version)
    found = snapshots.required(lake, "predictions")
    rows = sum(file.rows for file in snapshots.active_files(snapshots.open_table(found.path)))
    assert IMAGES == rows


def test_what_another_scorer_has_committed_is_not_begun(spark, filled, version):
    calls, others = [], []

    def stop():  # called before each micro-batch
        calls.append(1)
        if len(calls) in (2, 3):
            others.append(score(spark, filled, version, max_images=BATCH))
        return False

    own = score(spark, filled, version, stop)
    assert [BATCH, BATCH] == [other.images for other in others]
    assert (IMAGES - 2 * BATCH, 0) == (own.images, own.discarded)
    require_each_once(filled, version)


def beside(monkeypatch, when, action):
    """Does something between the computation and the commit of the micro-batches `when`."""
    written, count = scorer.commits.append_files, []

    def append_files(files, since, still_new):
        count.append(1)
        if len(count) in when:
            with monkeypatch.context() as patch:
                patch.setattr(scorer.commits, "append_files", written)
                action(len(count))
        return written(files, since, still_new)

    monkeypatch.setattr(scorer.commits, "append_files", append_files)


def test_a_micro_batch_of_other_images_than_the_other_scorers_is_committed(
    spark, filled, version, monkeypatch
):
    others = []

    def newest_first(batches, order):
        return list(reversed(batches)) if others else list(batches)

    def other(_):
        others.append(1)
        with monkeypatch.context() as patch:
            patch.setattr("mlproject.scoring.batch_scoring.in_order", newest_first)
            calls = []
            others.append(score(spark, filled, version, lambda: bool(calls) or calls.append(1)))

    beside(monkeypatch, {1}, other)
    own = score(spark, filled, version)
    assert (IMAGES - BATCH, 0) == (own.images, own.discarded)
    assert BATCH == others[-1].images
    require_each_once(filled, version)


def test_a_micro_batch_that_another_scorer_was_faster_with_is_counted_and_not_committed(
    spark, filled, version, monkeypatch
):
    beside(monkeypatch, {1}, lambda _: score(spark, filled, version, max_images=BATCH))
    own = score(spark, filled, version)
    assert (IMAGES - BATCH, BATCH) == (own.images, own.discarded)
    assert f"; {BATCH} more at the same time" in own.summary()
    require_each_once(filled, version)


def test_a_micro_batch_of_which_another_scorer_has_a_part_is_not_committed(
    spark, filled, version, monkeypatch
):
    beside(monkeypatch, {1}, lambda _: score(spark, filled, version, max_images=BATCH - 2))
    own = score(spark, filled, version)
    assert (IMAGES - BATCH + 2, BATCH) == (own.images, own.discarded)
    require_each_once(filled, version)


def test_a_scorer_that_was_slower_goes_on_from_another_end():
    batches = [MicroBatch(None, start, start + 1) for start in range(20)]
    assert batches == in_order(batches, "oldest")
    assert batches[::-1] == in_order(batches, "newest")
    assert batches[10:] + batches[:10] == in_order(batches, "middle")
    shuffled = in_order(batches, "random")
    assert shuffled not in (batches, batches[::-1])
    assert set(batches) == set(shuffled)
