import pytest

from mlproject.errors import RefusedError
from mlproject.gates import approvals, checks, summary
from mlproject.gates.checks import Limits, Work
from mlproject.reporting import gate_page
from mlproject.versions import version_files
from tests.support.lakes import add_images, say
from tests.support.versions import register_colours

POINTER = "models:/gated@champion"


@pytest.fixture(scope="module")
def versions(store):
    return register_colours("gated"), register_colours("gated", reverse=True)


@pytest.fixture
def judge(client, lake, versions):
    """Judges the second version beside the first, which says what `said` holds already."""

    def judged(*, before=True, golden="", score=lambda version, ids: None, **options):
        mode, approved = options.pop("mode", "block"), options.pop("approved", False)
        return checks.judge(
            client,
            lake,
            versions[1],
            versions[0] if before else None,
            Work(lambda version: golden, score),
            limits=Limits(**options),
            mode=mode,
            approved=approved,
        )

    return judged


def answered(lake, versions, right: int, before: int, of: int = 100, label: str = "red"):
    """Images of a label, of which the versions tell so many right."""
    ids = add_images(lake, range(of), label=label)
    for version, count in zip(versions, (before, right), strict=True):
        say(lake, version, ids[:count], label=label)
        say(lake, version, ids[count:], label="green" if label == "red" else "red")
    return ids


def states(judged):
    return {verdict.gate: verdict.state for verdict in judged.verdicts}


def refused(judged):
    return [verdict.gate for verdict in judged.refused]


def found(judged, gate):
    return next(verdict.found for verdict in judged.verdicts if verdict.gate == gate)


def test_a_version_as_good_as_the_one_before_passes_each_gate(lake, versions, judge):
    answered(lake, versions, right=99, before=100)
    judged = judge(min_accuracy=0.9, max_changed=0.05)
    assert {"passed"} == set(states(judged).values())
    names = ["files", "requirements", "golden", "sample", "accuracy", "drop", "labels", "changed"]
    assert names == list(states(judged))
    assert "passed" == judged.outcome("block")


def test_an_accuracy_below_the_least_is_refused_and_named_with_the_one_before(
    lake, versions, judge
):
    answered(lake, versions, right=89, before=90)
    judged = judge(min_accuracy=0.9)
    assert ["accuracy"] == refused(judged)
    assert "89.0 % of 100 labelled images, before 90.0 %" == found(judged, "accuracy")


def test_an_accuracy_at_the_limit_passes(lake, versions, judge):
    answered(lake, versions, right=90, before=100)
    assert [] == refused(judge(min_accuracy=0.9, max_drop=0.1))


def test_a_drop_of_all_images_is_refused(lake, versions, judge):
    answered(lake, versions, right=89, before=100, of=100)
    assert ["drop", "labels"] == refused(judge())


def test_a_label_that_is_lost_is_refused_though_all_together_hardly_fall(lake, versions, judge):
    red = add_images(lake, range(400), label="red")
    green = add_images(lake, range(400, 430), label="green")
    say(lake, versions[0], red, label="red")
    say(lake, versions[0], green, label="green")
    say(lake, versions[1], red + green, label="red")
    judged = judge()
    assert ["labels"] == refused(judged)
    assert "100.0 % of a label lost at most: 'green', 0 of 30, before 30" == found(judged, "labels")


def test_a_label_with_few_images_is_told_and_not_judged(lake, versions, judge):
    red = add_images(lake, range(400), label="red")
    green = add_images(lake, range(400, 399 + checks.LABEL_IMAGES), label="green")
    say(lake, versions[0], red, label="red")
    say(lake, versions[0], green, label="green")
    say(lake, versions[1], red + green, label="red")
    judged = judge()
    assert [] == refused(judged)
    assert ("green", 1.0) == (judged.accuracy.labels[0].label, judged.accuracy.labels[0].drop)


def test_more_changes_than_asked_for_are_refused(lake, versions, judge):
    answered(lake, versions, right=94, before=100)
    assert ["changed"] == refused(judge(max_changed=0.05))
    assert [] == refused(judge(max_changed=0.06))


def test_changes_are_counted_on_the_sample_alone(lake, versions, judge):
    ids = add_images(lake, range(20)) + add_images(lake, range(20, 40), label="red")
    for version in versions:
        say(lake, version, ids, label="red")
    judged = judge(sample=10)
    assert (10, 10) == (judged.difference.images, judged.accuracy.total.images)


def test_shares_are_never_rounded_up_to_all_or_down_to_nothing():
    told = [checks.percent(share) for share in (0, 0.0001, 0.5, 0.9999, 1, -0.0001)]
    assert ["0.0 %", "0.1 %", "50.0 %", "99.9 %", "100.0 %", "-0.1 %"] == told


def test_only_what_is_missing_is_scored(lake, versions, judge):
    ids = add_images(lake, range(10), label="red")
    say(lake, versions[0], ids, label="red")
    say(lake, versions[1], ids[:4], label="red")
    asked = []

    def score(version, image_ids):
        asked.append((version, sorted(image_ids)))
        say(lake, version, image_ids, label="red")

    assert "10 images, 6 of them scored now" == found(judge(score=score), "sample")
    assert [(versions[1], sorted(ids[4:]))] == asked
    judge(score=score)
    assert 1 == len(asked)


def test_a_version_that_cannot_be_scored_is_refused_with_the_reason(lake, versions, judge):
    say(lake, versions[0], add_images(lake, range(3), label="red"), label="red")

    def score(version, image_ids):
        raise RefusedError("its workers die")

    judged = judge(score=score)
    assert (["sample"], "its workers die") == (refused(judged), found(judged, "sample"))


def test_images_whose_files_cannot_be_read_now_are_told_and_the_rest_compared(
    lake, versions, judge
):
    ids = add_images(lake, range(3), label="red")
    say(lake, versions[0], ids, label="red")
    say(lake, versions[1], ids[:2], label="red")
    judged = judge()
    assert ("noted", 2) == (states(judged)["sample"], judged.difference.images)


def test_a_version_that_fails_the_golden_images_is_refused_and_nothing_is_scored(
    lake, versions, judge
):
    say(lake, versions[0], add_images(lake, range(3), label="red"), label="red")
    judged = judge(golden="empty file: a label instead of an error", score=None)
    assert (["golden"], None) == (refused(judged), judged.difference)


def test_the_first_version_is_judged_by_itself(lake, versions, judge):
    say(lake, versions[1], add_images(lake, range(10), label="red"), label="red")
    assert ["files", "requirements", "golden"] == list(states(judge(before=False)))[:3]
    judged = judge(before=False, min_accuracy=0.9)
    assert ({}, None) == (dict.fromkeys(refused(judged)), judged.difference)
    assert 1.0 == judged.accuracy.total.accuracy


def test_an_accuracy_that_cannot_be_measured_is_refused_where_one_is_asked_for(
    lake, versions, judge
):
    say(lake, versions[1], add_images(lake, range(3)), label="red")
    assert ["accuracy"] == refused(judge(before=False, min_accuracy=0.5))
    assert "skipped" == states(judge())["accuracy"]


def test_a_share_of_changes_that_cannot_be_measured_is_refused_where_one_is_asked_for(lake, judge):
    assert ["changed"] == refused(judge(max_changed=0.5))
    assert [] == refused(judge())


def test_other_packages_are_named_and_no_fault(store, client, lake):
    version = register_colours("pinned", pins=("mlflow==3.17.2", "pillow==1.0", "nothing==2"))
    work = Work(lambda version: "", lambda version, ids: None)
    judged = checks.judge(client, lake, version, None, work)
    assert [] == refused(judged)
    assert "noted" == states(judged)["requirements"]
    assert "pillow 1.0 (here 13.0.0), nothing 2 (here absent)" in found(judged, "requirements")


def test_files_that_changed_since_the_promotion_are_refused_in_every_mode(store, client, lake):
    version = register_colours("changed")
    files = version_files.read(version)
    version_files.require_unchanged(client, version, files)
    (code,) = store.rglob(f"{version.model_id}/**/colour_model.py")
    code.write_text(code.read_text() + "# another\n")
    work = Work(lambda version: "", lambda version, ids: None)
    for mode in ("block", "warn", "off"):
        judged = checks.judge(client, lake, version, None, work, mode=mode)
        assert (["files"], "refused") == (refused(judged), judged.outcome(mode))
    assert "files changed since promotion" in found(judged, "files")


def test_files_that_are_lost_are_refused_with_the_reason(store, client, lake):
    version = register_colours("lost")
    (code,) = store.rglob(f"{version.model_id}/**/colour_model.py")
    for path in code.parent.iterdir():
        path.unlink()
    code.parent.rmdir()
    work = Work(lambda version: "", lambda version, ids: None)
    judged = checks.judge(client, lake, version, None, work)
    assert (["files"], True) == (refused(judged), "no file MLmodel" in found(judged, "files"))


def test_an_approval_is_asked_for_in_every_mode_and_is_of_these_very_files(store, client, judge):
    assert (["approval"], "refused") == (
        refused(judge(require_approval=True, mode="off")),
        judge(require_approval=True, mode="warn").outcome("warn"),
    )
    assert [] == refused(judge(require_approval=True, approved=True))
    version = register_colours("approved")
    assert not approvals.approval(client, version, "digest")[0]
    approvals.approve(client, version, "digest", "Ada")
    fine, words = approvals.approval(client, version, "digest")
    assert (True, True) == (fine, words.startswith("by Ada, 20"))
    assert (False, True) == (
        approvals.approval(client, version, "other")[0],
        "not with these files" in approvals.approval(client, version, "other")[1],
    )


def test_what_a_mode_makes_of_a_refusal(lake, versions, judge):
    answered(lake, versions, right=0, before=100)
    judged = judge()
    assert ["refused", "warned"] == [judged.outcome(mode) for mode in ("block", "warn")]
    off = judge(mode="off", golden="wrong")
    assert ("off", ["files"]) == (off.outcome("off"), list(states(off)))


def test_tables_and_the_page_tell_the_gates_the_labels_and_the_changes(lake, versions, judge):
    ids = answered(lake, versions, right=60, before=100)
    judged = judge(max_changed=0.1)
    tables = dict(summary.tables(judged))
    assert [("red", 100, "100.0 %", "60.0 %", "40.0 %")] == list(
        tables[("label", "images ", "right before ", "right ", "lost ")]
    )
    assert [("red", "green", 40)] == list(tables[("said before", "would say", "images ")])
    places = {ids[0]: ("/photos/red/<000>.jpg", 0)}
    changed = summary.changed(judged.difference, places)
    assert {40} == {len(column) for column in changed.values()}
    facts = gate_page.Facts(
        POINTER, versions[1], versions[0], "refused", judged, places, {}, made_at=0
    )
    page = gate_page.render(facts)
    assert "refused: nothing moves" in page
    assert 24 == page.count("<figure>")
    assert "changed.json" in page
    figures = summary.figures(judged)
    assert (0.4, 0.6, 0.4) == tuple(
        figures[name] for name in ("changed_share", "accuracy", "accuracy_drop")
    )


def test_the_page_of_a_first_version_tells_that_nothing_was_compared(lake, versions, judge):
    facts = gate_page.Facts(
        POINTER, versions[1], None, "passed", judge(before=False), {}, {}, made_at=0
    )
    page = gate_page.render(facts)
    assert "Readers see no version yet" in page
    assert "Nothing was compared" in page
