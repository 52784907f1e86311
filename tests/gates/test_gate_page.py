"""What the tables, the metrics and the page of the gates show."""

from mlproject.gates import gate_page, summary
from tests.support.gates import add_labelled

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


def test_the_page_of_a_first_version_states_that_nothing_was_compared(lake, versions, check):
    page = gate_page.render(POINTER, versions[1], None, check(serving=False), "passed", {}, {})
    assert "There is no serving version yet" in page
    assert "Nothing was compared" in page
