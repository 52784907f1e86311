import pytest

from mlproject.gates import comparison
from mlproject.lake import snapshots
from mlproject.versions.registry import Version
from tests.support.lakes import add, add_images, add_predictions, day

OLD = Version("photos", 1, "m-old", None)
NEW = Version("photos", 2, "m-new", None)


def choose(lake, count):
    return comparison.sample_images(lake, count, snapshots.required(lake, "images"))


def compared(lake, count=100):
    chosen = choose(lake, count)
    return (
        chosen,
        comparison.read_predictions(lake, NEW, chosen),
        comparison.read_predictions(lake, OLD, chosen),
    )


def test_the_sample_is_the_smallest_image_ids_without_those_that_cannot_be_read(lake):
    add_images(lake, [3], error="empty")
    add_images(lake, [5], error="undecodable")
    readable = sorted(add_images(lake, {*range(20)} - {3, 5}))
    found = choose(lake, 7)
    assert readable[:7] == [image.image_id for image in found]
    assert {True} == {image.sampled for image in found}
    add(lake, "images", {"image_id": "f" * 64, "path": "/new.jpg"})
    assert found == choose(lake, 7)


def test_labelled_images_are_added_to_a_sample_with_few_labels(lake):
    labelled = add_images(lake, range(3), label="red")
    ids = labelled + add_images(lake, range(3, 43))
    found = choose(lake, 5)
    assert set(labelled) == {image.image_id for image in found if image.label}
    assert sorted(ids)[:5] == [image.image_id for image in found if image.sampled]


def test_where_every_image_has_a_label_the_sample_is_the_labelled_images(lake):
    add_images(lake, range(40), label="red")
    assert 5 == len(choose(lake, 5))


def test_files_with_the_same_bytes_and_different_labels_have_no_label(lake):
    add_images(lake, [0], label="red")
    add_images(lake, [0], label="green", path="/p")
    (found,) = choose(lake, 5)
    assert found.label is None


def test_the_newest_label_is_the_label(lake):
    [key] = add_images(lake, [1], label="daisy")
    given = {"image_id": key, "path": "/photos/001.jpg"}
    for number, label in enumerate(("rose", "tulip"), start=1):
        add(lake, "labels", {**given, "label": label, "at": day(number)})
    [image] = choose(lake, 9)
    assert "tulip" == image.label


def test_accuracy_is_measured_on_the_images_with_predictions_of_both_versions(lake):
    red = add_images(lake, range(2), label="red")
    green = add_images(lake, range(2, 5), label="green")
    add_predictions(lake, OLD, [*red, green[1]], label="red")
    add_predictions(lake, OLD, green[:1], label="green")
    add_predictions(lake, NEW, [red[1], *green], label="green")
    found = comparison.accuracy(*compared(lake))
    rows = {row.label: (row.images, row.correct, row.correct_before) for row in found.labels}
    assert {"red": (1, 0, 1), "green": (2, 2, 1)} == rows
    assert (3, 2, 2) == (found.total.images, found.total.correct, found.total.correct_before)
    assert 0.0 == found.total.drop
    assert ["red", "green"] == [row.label for row in found.labels]  # the largest drop first


def test_an_error_is_an_incorrect_prediction_and_a_change(lake):
    ids = add_images(lake, range(2), label="red")
    add_predictions(lake, OLD, ids, label="red")
    add_predictions(lake, NEW, ids[:1], label="red")
    add_predictions(lake, NEW, ids[1:], error="undecodable")
    chosen, after, before = compared(lake)
    assert 1 == comparison.accuracy(chosen, after, before).total.correct
    found = comparison.difference(chosen, after, before)
    assert (("red", "error: undecodable", 1),) == found.transitions
    assert (0.5, 0.9) == (found.share, pytest.approx(found.score_before))


def test_an_image_whose_file_is_gone_does_not_count(lake):
    ids = add_images(lake, range(2), label="red")
    add_predictions(lake, OLD, ids, label="red")
    add_predictions(lake, NEW, ids[:1], label="red")
    add_predictions(lake, NEW, ids[1:], error="gone")
    chosen, after, before = compared(lake)
    assert 1 == comparison.accuracy(chosen, after, before).total.images
    assert 1 == comparison.difference(chosen, after, before).images


def test_a_label_that_no_version_predicts_does_not_count_and_is_listed(lake):
    ids = add_images(lake, [0], label="red") + add_images(lake, [1, 2], label="2024-05")
    for version in (OLD, NEW):
        add_predictions(lake, version, ids, label="red")
    found = comparison.accuracy(*compared(lake))
    assert (1, 1) == (found.total.images, found.total.correct)
    assert {"2024-05": 2} == found.unknown


def test_a_label_that_only_the_serving_version_predicts_counts_as_a_drop(lake):
    ids = add_images(lake, [0], label="red") + add_images(lake, [1], label="green")
    add_predictions(lake, OLD, ids[:1], label="red")
    add_predictions(lake, OLD, ids[1:], label="green")
    add_predictions(lake, NEW, ids, label="red")
    assert 0.5 == comparison.accuracy(*compared(lake)).total.drop


def test_changes_hold_both_predictions_and_the_highest_scores_come_first(lake):
    ids = add_images(lake, range(3))
    add_predictions(lake, OLD, ids, label="red")
    add_predictions(lake, NEW, ids[:1], label="green", score=0.5)
    add_predictions(lake, NEW, ids[1:2], label="green", score=0.8)
    add_predictions(lake, NEW, ids[2:], label="red", score=0.8)
    found = comparison.difference(*compared(lake))
    assert [ids[1], ids[0]] == [change.image.image_id for change in found.changes]
    assert [("red", 0.9, "green", 0.8), ("red", 0.9, "green", 0.5)] == [
        (change.before.label, change.before.score, change.after.label, change.after.score)
        for change in found.changes
    ]
    assert (3, (("red", "green", 2),)) == (found.images, found.transitions)
    assert (0.9, 0.7, 0.2) == pytest.approx((found.score_before, found.score, found.score_moved))


def test_more_images_than_one_query_takes_are_read_by_several(lake, monkeypatch):
    monkeypatch.setattr(comparison, "IDS_PER_QUERY", 3)
    ids = add_images(lake, range(10))
    add_predictions(lake, NEW, ids, label="red")
    chosen = choose(lake, 10)
    assert set(ids) == set(comparison.read_predictions(lake, NEW, chosen))
    paths = comparison.image_paths(lake, ids)
    assert "/photos/004.jpg" == paths[ids[4]][0]


def test_without_images_there_is_nothing_to_measure(lake):
    add_images(lake, [])
    chosen, after, before = compared(lake)
    assert comparison.accuracy(chosen, after, before).total is None
    assert 0 == comparison.difference(chosen, after, before).share
