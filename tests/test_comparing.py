import pytest

from mlproject import comparing, coverage
from mlproject.registry import Version
from tests import answers_for_tests as lakes

OLD = Version("photos", 1, "m-old", None)
NEW = Version("photos", 2, "m-new", None)


def choose(lake, count):
    return comparing.choose(lake, count, coverage.newest_images(lake))


def compared(lake, count=100):
    chosen = choose(lake, count)
    return chosen, comparing.answers(lake, NEW, chosen), comparing.answers(lake, OLD, chosen)


def test_the_sample_is_the_smallest_image_ids_without_those_that_cannot_be_read(lake):
    ids = lakes.images(lake, [None] * 20, errors={3: "empty", 5: "undecodable"})
    readable = sorted(set(ids) - {ids[3], ids[5]})
    found = choose(lake, 7)
    assert readable[:7] == [image.image_id for image in found]
    assert {True} == {image.sampled for image in found}
    lakes.write(lake, "images", [{"image_id": "f" * 64, "path": "/new.jpg"}])
    assert found == choose(lake, 7)


def test_labelled_images_come_beside_a_sample_that_has_few_of_them(lake):
    ids = lakes.images(lake, ["red"] * 3 + [None] * 40)
    found = choose(lake, 5)
    assert set(ids[:3]) == {image.image_id for image in found if image.label}
    assert sorted(ids)[:5] == [image.image_id for image in found if image.sampled]


def test_labels_everywhere_make_one_sample_of_both(lake):
    lakes.images(lake, ["red"] * 40)
    assert 5 == len(choose(lake, 5))


def test_files_with_the_same_bytes_and_different_labels_have_none(lake):
    (image_id,) = lakes.images(lake, ["red"])
    lakes.write(lake, "images", [{"image_id": image_id, "path": "/p", "label": "green"}])
    (found,) = choose(lake, 5)
    assert found.label is None


def test_accuracy_is_told_for_both_on_the_images_that_both_have_answered(lake):
    ids = lakes.images(lake, ["red", "red", "green", "green", "green"])
    lakes.say(lake, OLD, dict.fromkeys(ids[:4], "red") | {ids[2]: "green"})
    lakes.say(lake, NEW, dict.fromkeys(ids[1:], "green"))
    found = comparing.accuracy(*compared(lake))
    told = {right.label: (right.images, right.right, right.before) for right in found.labels}
    assert {"red": (1, 0, 1), "green": (2, 2, 1)} == told
    assert (3, 2, 2) == (found.total.images, found.total.right, found.total.before)
    assert 0.0 == found.total.drop
    assert ["red", "green"] == [right.label for right in found.labels]  # what lost most first


def test_an_error_is_a_wrong_answer_and_a_change(lake):
    ids = lakes.images(lake, ["red", "red"])
    lakes.say(lake, OLD, dict.fromkeys(ids, "red"))
    lakes.say(lake, NEW, {ids[0]: "red", ids[1]: None})
    chosen, after, before = compared(lake)
    assert 1 == comparing.accuracy(chosen, after, before).total.right
    found = comparing.difference(chosen, after, before)
    assert (("red", "error: undecodable", 1),) == found.flows
    assert (0.5, 0.9) == (found.share, pytest.approx(found.score_before))


def test_an_image_whose_file_is_gone_is_no_fault_of_the_version(lake):
    ids = lakes.images(lake, ["red", "red"])
    lakes.say(lake, OLD, dict.fromkeys(ids, "red"))
    lakes.say(lake, NEW, {ids[0]: "red"})
    lakes.say(lake, NEW, {ids[1]: None}, error="gone")
    chosen, after, before = compared(lake)
    assert 1 == comparing.accuracy(chosen, after, before).total.images
    assert 1 == comparing.difference(chosen, after, before).images


def test_a_label_that_no_version_knows_does_not_count_and_is_told(lake):
    ids = lakes.images(lake, ["red", "2024-05", "2024-05"])
    for version in (OLD, NEW):
        lakes.say(lake, version, dict.fromkeys(ids, "red"))
    found = comparing.accuracy(*compared(lake))
    assert (1, 1) == (found.total.images, found.total.right)
    assert {"2024-05": 2} == found.unknown


def test_a_label_that_only_the_version_before_knows_is_lost(lake):
    ids = lakes.images(lake, ["red", "green"])
    lakes.say(lake, OLD, dict(zip(ids, ["red", "green"], strict=True)))
    lakes.say(lake, NEW, dict.fromkeys(ids, "red"))
    assert 0.5 == comparing.accuracy(*compared(lake)).total.drop


def test_changes_come_with_both_answers_and_the_surest_first(lake):
    ids = lakes.images(lake, [None] * 3)
    lakes.say(lake, OLD, dict.fromkeys(ids, "red"))
    lakes.say(lake, NEW, {ids[0]: "green"}, score=0.5)
    lakes.say(lake, NEW, {ids[1]: "green", ids[2]: "red"}, score=0.8)
    found = comparing.difference(*compared(lake))
    assert [ids[1], ids[0]] == [change.image.image_id for change in found.changes]
    assert [("red", 0.9, "green", 0.8), ("red", 0.9, "green", 0.5)] == [
        (change.before.label, change.before.score, change.after.label, change.after.score)
        for change in found.changes
    ]
    assert (3, (("red", "green", 2),)) == (found.images, found.flows)
    assert (0.9, 0.7, 0.2) == pytest.approx((found.score_before, found.score, found.score_moved))


def test_more_images_than_one_query_takes_are_asked_in_several(lake, monkeypatch):
    monkeypatch.setattr(comparing, "ASKED", 3)
    ids = lakes.images(lake, [None] * 10)
    lakes.say(lake, NEW, dict.fromkeys(ids, "red"))
    chosen = choose(lake, 10)
    assert set(ids) == set(comparing.answers(lake, NEW, chosen))
    places = comparing.places(lake, ids, coverage.newest_images(lake))
    assert "/photos/None/004.jpg" == places[ids[4]][0]


def test_without_images_there_is_nothing_to_measure(lake):
    lakes.images(lake, [])
    chosen, after, before = compared(lake)
    assert comparing.accuracy(chosen, after, before).total is None
    assert 0 == comparing.difference(chosen, after, before).share
