"""What the tables, the metrics and the page of the gates show."""

import base64

from mlproject.gates import gate_page, summary
from tests.support.gates import add_labelled
from tests.support.lakes import add_images, add_predictions
from tests.support.pages import changed_images

POINTER = "models:/gated@champion"


def test_tables_and_the_page_show_the_gates_the_labels_and_the_changes(lake, versions, check):
    ids = add_labelled(lake, versions, right=60, before=100)
    results = check(max_changed=0.1)
    tables = dict(summary.tables(results))
    assert [("red", 100, "100.0 %", "60.0 %", "40.0 %")] == list(
        tables[("label", "images ", "accuracy before ", "accuracy ", "drop ")]
    )
    assert [("red", "green", 40)] == list(tables[("label before", "label after", "images ")])
    paths = dict.fromkeys(ids, ("/photos/red/<000>.jpg", 0))
    changed = summary.changed_images(results.comparison.difference, paths)
    assert (40, {"/photos/red/<000>.jpg"}) == (len(changed), set(changed.path))
    page = gate_page.render(POINTER, versions[1], versions[0], results, "refused", paths, {})
    assert "&lt;000&gt;.jpg" in page
    assert "refused: the serving version stays" in page
    assert 24 == page.count("<figure>")
    assert "changed.json" in page
    metrics = summary.metrics(results)
    assert (0.4, 0.6, 0.4) == tuple(
        metrics[name] for name in ("changed_share", "accuracy", "accuracy_drop")
    )


def test_each_image_of_changed_label_is_shown_with_both_labels_and_its_thumbnail(
    lake, versions, check
):
    labels = [("red", "green"), ("red", "green"), ("red", "blue"), ("green", "blue")]
    labels += [("blue", "blue")]
    ids = add_images(lake, range(5))
    for number, both in enumerate(labels):
        for version, label in zip(versions, both, strict=True):
            one = ids[number : number + 1]
            add_predictions(lake, version, one, label=label, score=0.9 - number / 10)
    results = check()
    counts = [("red", "green", 2), ("green", "blue", 1), ("red", "blue", 1)]
    tables = dict(summary.tables(results))
    assert counts == list(tables[("label before", "label after", "images ")])
    thumbnails = {image_id: image_id.encode() for image_id in ids}
    page = gate_page.render(POINTER, *versions[::-1], results, "passed", {}, thumbnails)
    pictures = changed_images(page)
    assert 4 == len(pictures)  # not the one that keeps its label
    for picture, image_id, (before, after) in zip(pictures, ids, labels, strict=False):
        assert f"image_id {image_id}" in picture
        assert base64.b64encode(thumbnails[image_id]).decode() in picture
        assert picture.index(f">{before}<") < picture.index(f">{after}<")


def test_the_page_of_a_first_version_states_that_nothing_was_compared(lake, versions, check):
    page = gate_page.render(POINTER, versions[1], None, check(serving=False), "passed", {}, {})
    assert "There is no serving version yet" in page
    assert "Nothing was compared" in page
