import hashlib

import numpy as np
import pytest

from mlproject.errors import UserError
from mlproject.images import splits
from mlproject.ingestion import labels
from mlproject.lake import snapshots
from mlproject.training import figures, labelled_images, learning
from tests.support.lakes import add, day, image_id


def ids(count: int, word: str = "") -> list[str]:
    return [hashlib.sha256(f"{word}{number}".encode()).hexdigest() for number in range(count)]


def test_about_a_fifth_is_held_out_of_a_large_label():
    large = dict.fromkeys(ids(5000), "cat")
    assert 0.18 < len(splits.held_out(large)) / 5000 < 0.22


def test_new_images_do_not_change_the_split_of_others():
    before = {**dict.fromkeys(ids(60, "a"), "a"), **dict.fromkeys(ids(60, "b"), "b")}
    after = {**before, **dict.fromkeys(ids(500, "later"), "a"), **dict.fromkeys(ids(9, "c"), "c")}
    assert splits.held_out(before) == splits.held_out(after) & before.keys()


def test_the_order_of_images_does_not_matter():
    some = dict.fromkeys(ids(100), "a") | dict.fromkeys(ids(100, "b"), "b")
    assert splits.held_out(some) == splits.held_out(dict(reversed(some.items())))


@pytest.mark.parametrize("word", ["a", "b", "c", "d", "e", "f", "g", "h"])
@pytest.mark.parametrize("count", [2, 3, 4])
def test_a_small_label_is_on_both_sides_of_the_split(word, count):
    held_out = splits.held_out(dict.fromkeys(ids(count, word), "small"))
    assert 1 <= len(held_out) < count


def test_the_split_does_not_follow_the_leading_digits_of_the_id():
    low = sorted(ids(2000))[:400]
    held_out = splits.held_out(dict.fromkeys(ids(2000), "a"))
    assert 40 < sum(image_id in held_out for image_id in low) < 120


@pytest.mark.spark
def test_the_labels_of_training_are_found_without_spark_too(spark, lake):
    def image(number, label, at=1, path="", **facts):
        row = {"path": path or f"/{number}.jpg", "image_id": image_id(number), "label": label}
        return {**row, "size_bytes": 1, "modified_at": day(at), "ingested_at": day(at), **facts}

    add(
        lake,
        "images",
        *(image(number, label) for number, label in enumerate(["a", "a", "b", "b", None, ""])),
        image(6, "b", error="too_many_bytes"),
        *(image(7, label, path=f"/{label}/7.jpg") for label in ("a", "b")),  # two labels
        *(image(8, label, at, f"/{label}/8.jpg") for label, at in (("a", 1), ("b", 2))),  # moved
        *(image(number, "a") for number in (9, 10)),
    )
    given = {"image_id": image_id(9), "path": "/9.jpg", "source": "here", "at": day(3)}
    other = {**given, "image_id": image_id(10), "path": "/10.jpg"}
    add(lake, "labels", {**given, "label": "b"}, {**other, "label": None})
    rows, later = (snapshots.rows(spark, lake, table) for table in ("images", "labels"))
    expected, _ = labelled_images.labelled(labels.with_newest(rows.drop("content"), later))
    assert expected == labels.by_image(lake)
    assert {0: "a", 1: "a", 2: "b", 3: "b", 8: "b", 9: "b"} == {
        number: expected[image_id(number)] for number in range(12) if image_id(number) in expected
    }


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([], "no labelled image"),
        (["rose", "rose"], "All images have the label 'rose'"),
        (["rose", "rose", "tulip"], "Label 'tulip' has one image"),
    ],
)
def test_too_few_labels_are_refused_in_one_line_with_the_next_command(given, message):
    with pytest.raises(UserError, match=message) as raised:
        labelled_images.require_classes(given)
    assert "-e ingest" in str(raised.value)
    assert "\n" not in str(raised.value)


def test_each_epoch_has_every_image_once_and_no_batch_of_one():
    rows = np.arange(33)
    plan = list(learning.plan(rows, (2, 5), 16, 1.0, np.random.default_rng(0)))
    assert [3, 4, 5] == [epoch for epoch, _ in plan]
    for _, steps in plan:
        assert [11, 11, 11] == [len(batch) for batch, _ in steps]
        assert rows.tolist() == sorted(np.concatenate([batch for batch, _ in steps]).tolist())
    rates = [rate for _, steps in plan for _, rate in steps]
    assert max(rates) == 1.0
    assert rates[0] < 1.0
    assert rates[-1] < 0.2


def test_the_head_learns_from_the_features_and_depends_on_the_seed(tmp_path):
    rng = np.random.default_rng(0)
    targets = np.arange(300) % 3
    features = rng.normal(size=(300, 8)).astype(np.float32)
    features[np.arange(300), targets] += 4
    rows = np.arange(300)
    data = learning.Examples(tmp_path / "none", 1, targets, ("a", "b", "c"), rows[:240], rows[240:])
    settings = learning.Settings(epochs=20, batch_size=32, learning_rate=1e-2, image_size=32)
    curve = []
    heads = [
        learning.fit_head(features, data, settings, lambda *point: curve.append(point))
        for _ in range(2)
    ]
    assert curve[19][2].accuracy > 0.95
    assert curve[19][1].loss < curve[0][1].loss
    np.testing.assert_array_equal(heads[0][0], heads[1][0])


def test_flips_mirror_left_to_right_and_change_nothing_else():
    pixels = np.arange(2 * 4 * 4 * 3, dtype=np.uint8).reshape(2, 4, 4, 3)
    many = np.repeat(pixels[:1], 100, axis=0)
    turned = learning.flipped(many, np.random.default_rng(0))
    as_is = [(image == pixels[0]).all() for image in turned]
    other = [(image == pixels[0, :, ::-1]).all() for image in turned]
    assert all(a != b for a, b in zip(as_is, other, strict=True))
    assert 30 < sum(as_is) < 70


@pytest.mark.parametrize("classes", [2, 20, 61, 1000])
def test_a_confusion_figure_can_be_drawn_for_few_and_many_labels(classes, tmp_path):
    truth = np.arange(classes)
    counts = figures.confusion(truth, truth[::-1], classes)
    labels = tuple(f"a label of some length {number}" for number in range(classes))
    figures.confusion_figure(counts, labels).savefig(tmp_path / "figure.png")
    assert classes == counts.sum()


def test_errors_with_the_highest_scores_come_first_and_correct_predictions_never():
    probabilities = np.array([[0.9, 0.1], [0.4, 0.6], [0.2, 0.8], [0.7, 0.3]], np.float32)
    truth = np.array([0, 0, 0, 1])
    assert [2, 3, 1] == figures.worst_errors(probabilities, truth, 20).tolist()
    assert [2] == figures.worst_errors(probabilities, truth, 1).tolist()


def test_file_names_of_errors_contain_no_path():
    assert "01_true---etc_said-b-b_0.50.png" == figures.file_name(1, "/.etc", "b b", 0.5).replace(
        "-.", "--"
    )
