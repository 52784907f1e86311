"""The report compares quantized versions with those that they were made from."""

from mlproject.reporting import lake_report
from tests.conftest import photo
from tests.support.lakes import (
    add_image,
    add_images,
    add_predictions,
    add_rollout,
    day,
    version,
)
from tests.support.pages import changed_images

OLD, NEW, SMALL = version(1), version(2), version(1, "m-small", "small")


def test_a_quantized_version_is_compared_with_its_source_whatever_their_models(lake):
    ids = add_images(lake, [1])
    for number, one in enumerate((OLD, NEW, SMALL)):
        label = "rose" if one == OLD else "daisy"
        add_predictions(lake, one, ids, day(1 + number), label=label)
    add_rollout(lake, "models:/photos@champion", OLD, "serving", day(5))

    def pairs(**sources):
        data = lake_report.collect(lake, lambda one: sources.get(one.name, ""))
        return [(found.version, found.other, found.different) for found in data.differences]

    assert [(OLD, NEW, 1)] == pairs()
    assert [(SMALL, OLD, 1), (OLD, NEW, 1)] == pairs(small=OLD.uri)
    assert [(SMALL, NEW, 0), (OLD, NEW, 1)] == pairs(small=NEW.uri)
    assert [(OLD, NEW, 1)] == pairs(small="models:/gone/1")
    # NEW was made from OLD: the same two versions are not shown twice.
    by_number = {NEW: OLD.uri}
    data = lake_report.collect(lake, lambda one: by_number.get(one, ""))
    assert [(NEW, OLD)] == [(found.version, found.other) for found in data.differences]


def test_each_image_of_changed_label_is_shown_with_both_labels_and_its_thumbnail(lake):
    labels = [("rose", "daisy"), ("rose", "daisy"), ("tulip", "daisy"), ("aster", "iris")]
    labels += [("fern", "fern")]
    ids = []
    for number, (before, after) in enumerate(labels):
        content = photo((50 * number, 90, 90), number)
        ids.append(add_image(lake, f"/{number}.jpg", content, day(1)))
        score = 0.9 - number / 10
        add_predictions(lake, OLD, ids[-1:], day(2), label=before, score=score)
        add_predictions(lake, SMALL, ids[-1:], day(3), label=after, score=score)
    add_rollout(lake, "models:/photos@champion", OLD, "serving", day(5))
    sources = {"small": OLD.uri}
    data = lake_report.collect(lake, lambda one: sources.get(one.name, ""))
    [found] = data.differences
    assert (5, 4) == (found.both, found.different)
    counts = (("rose", "daisy", 2), ("aster", "iris", 1), ("tulip", "daisy", 1))
    assert counts == found.transitions
    pictures = changed_images(lake_report.render(data))
    assert 4 == len(pictures)  # not the one that keeps its label
    for picture, image_id, (before, after) in zip(pictures, ids, labels, strict=False):
        assert f"image_id {image_id}" in picture
        assert "data:image/jpeg;base64," in picture
        assert f">{before}<" in picture
        assert f">{after}<" in picture
