"""Roll-outs with `retry=errors`: what is decided, recorded and planned."""

import json
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from mlproject.errors import MachineError, RefusedError, UserError
from mlproject.ingestion import new_images, source_listing
from mlproject.rollout import ledger, planning
from mlproject.rollout.decision import (
    Done,
    Observed,
    Policy,
    Record,
    Score,
    VersionStatus,
    next_step,
)
from mlproject.rollout.rescoring import rescore
from mlproject.scoring.coverage import Coverage, StoredErrors
from mlproject.versions import registry
from tests.conftest import photo, photos
from tests.support.commands import run_command
from tests.support.lakes import add_images, add_predictions, add_rollout, image_id, version
from tests.support.rollouts import POINTER as PHOTOS
from tests.support.rollouts import Scoring, point, reconcile, states
from tests.support.versions import register_colours

POINTER = "models:/retried@champion"
CODES = ("model_failed", "gone")
WHEN = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
STORED = StoredErrors({"gone": 1, "model_failed": 2}, WHEN, WHEN)
REASON = "retries errors (gone: 1, model_failed: 2, found 2026-01-02T03:04:05Z)"
V1, V2 = version(1), version(2)
SERVED = VersionStatus(V1, Coverage(10, 10, 3, 5), None, has_served=True)
SERVES = Observed(SERVED, SERVED, stored=STORED)
MOVED = replace(SERVES, target=VersionStatus(V2, Coverage(10, 4, 3, 5)))
AGAIN = Score(V1, REASON, retry=CODES)


@pytest.mark.parametrize(
    ("rule", "seen", "step"),
    [
        ("errors of the serving version are scored again", SERVES, AGAIN),
        ("of another version before it is scored", MOVED, replace(AGAIN, version=V2)),
        (
            "once",
            replace(SERVES, retried=REASON),
            Record(((V1, "serving", REASON),)),
        ),
        ("not without such errors", replace(SERVES, stored=StoredErrors({}, None, None)), None),
        ("not when the command is to end", replace(SERVES, stopped=True), None),
        ("nor beyond its limits", replace(SERVES, limit_reached=True), None),
    ],
)
def test_what_follows_stored_errors(rule, seen, step):
    found = next_step(seen, Policy(retry=True, retry_errors=CODES))
    if step is None:
        assert not isinstance(found, Score)
    else:
        assert step == found


def test_without_the_option_no_error_is_scored_again():
    settled = replace(SERVED, last=ledger.Entry(V1, "serving", 1.0, SERVED.coverage, "", "", WHEN))
    assert Done() == next_step(Observed(settled, settled, stored=STORED), Policy())


@pytest.fixture
def erring(client, lake, versions):
    """Ten images; the first version serves with two errors that can change and one that cannot."""
    add_images(lake, range(10))
    add_predictions(lake, versions[0], map(image_id, range(7)))
    add_predictions(lake, versions[0], map(image_id, (7, 8)), error="model_failed")
    add_predictions(lake, versions[0], [image_id(9)], error="undecodable")
    point(client, versions[0])
    reconcile(client, lake, max_error_rate=1)
    return lake


def test_a_plan_counts_the_images_whose_error_can_change(client, erring):
    [found] = planning.alias_plans(client, erring, [PHOTOS])
    assert {"model_failed": 2} == found.target.stored.codes == found.serving.stored.codes
    printed = run_command("plan", "--lake", erring).stdout
    assert "retryable" in printed
    assert "models:/photos/1: 2 images have an error that can change" in printed
    assert "-P retry=errors" in " ".join(printed.split())
    assert max(map(len, printed.splitlines())) <= 100
    [facts] = json.loads(run_command("plan", "--lake", erring, "--json").stdout)
    assert {"model_failed": 2} == facts["version"]["retryable"] == facts["readers"]["retryable"]


def test_a_plan_of_rescore_takes_the_same_option(client, erring):
    words = ("rescore", "--lake", erring, "--plan", "true", "--retry")
    assert "serving" in run_command(*words, "errors").stdout
    assert "is not allowed. Write false, true, errors, or codes" in (
        run_command(*words, "undecodable", code=2).stderr
    )


def test_a_version_that_failed_by_errors_that_can_change_is_advised_to_score_them_again(
    client, erring, versions
):
    point(client, versions[1])
    add_predictions(erring, versions[1], map(image_id, range(5)))
    add_predictions(erring, versions[1], map(image_id, range(5, 10)), error="model_failed")
    with pytest.raises(RefusedError, match=r"-P retry=errors, which scores 5 images again$"):
        reconcile(client, erring)
    for retry, error in ((False, "failed before"), (True, "failed: errors on 2 of 7")):
        with pytest.raises(RefusedError, match=rf"{error}.* -P retry=errors, which scores 5"):
            reconcile(client, erring, retry=retry)


def test_a_fault_of_the_machine_fails_no_version_and_ends_with_1(client, erring, versions):
    point(client, versions[1])

    def fail(step, stop):
        raise MachineError("the machine failed")

    with pytest.raises(MachineError):
        reconcile(client, erring, Scoring(fail))
    assert (2, "scoring") == states(erring)[-1]


def test_of_several_aliases_a_fault_of_the_machine_is_the_commands_error(
    client, erring, versions, monkeypatch
):
    stage = "models:/photos/Production"
    add_rollout(erring, stage, versions[1], "failed", reason="too slow")
    registry.move(client, versions[1], stage="Production")
    point(client, versions[2])

    def fail(*arguments, **options):
        raise MachineError("the machine failed")

    monkeypatch.setattr("mlproject.rollout.version_scoring.VersionScorer.score", fail)
    with pytest.raises(MachineError):
        rescore([stage, PHOTOS], erring)


def test_a_wrong_code_is_the_users_error_before_anything_is_read(lake):
    with pytest.raises(UserError, match="retry='empty' is not allowed"):
        rescore([PHOTOS], lake, retry=["empty"])


@pytest.fixture
def source(spark, lake, store, tmp_path):
    folder = photos(tmp_path / "source", 7, "red")
    photos(folder, 3, "blue")
    new_images.ingest_pending(spark, lake, source_listing.listing(str(folder)))
    return folder


def rolled_out(lake, *options, code=0):
    result = run_command("rescore", "--lake", lake, "--pointers", POINTER, *options, code=code)
    return result.stderr if code else result.stdout


@pytest.mark.spark
def test_errors_of_the_serving_version_are_replaced_and_the_ledger_names_them(
    spark, client, lake, source, tmp_path
):
    mended = tmp_path / "mended"
    served = register_colours("retried", fault="raises", mended=mended)
    registry.move(client, served, alias="champion")
    rolled_out(lake, "--max_error_rate", "1")
    mended.touch()
    assert "nothing to score" in rolled_out(lake)
    assert "3 images scored" in rolled_out(lake, "--retry", "errors")
    now = ledger.read(lake).serving(POINTER)
    assert (10, 0) == (now.covered.predicted, now.covered.errors)
    assert now.reason.startswith("retries errors (model_failed: 3, found 20")
    run = client.get_run(now.run_id)
    assert now.reason == run.data.tags["mlproject.retried"] == run.data.tags["mlproject.reason"]
    assert "FINISHED" == run.info.status
    assert "nothing to score" in rolled_out(lake, "--retry", "errors")
    assert now == ledger.read(lake).serving(POINTER)


@pytest.mark.spark
def test_a_version_that_failed_by_its_errors_serves_once_they_are_replaced(
    spark, client, lake, source, tmp_path
):
    mended = tmp_path / "mended"
    registry.move(client, register_colours("retried"), alias="champion")
    rolled_out(lake)
    ill = register_colours("retried", fault="raises", mended=mended)
    registry.move(client, ill, alias="champion")
    advice = "-P retry=errors, which scores 3 images again"
    assert advice in rolled_out(lake, code=3)
    assert advice in rolled_out(lake, code=3)
    mended.touch()
    (source / "late.jpg").write_bytes(photo((30, 200, 30), 3))
    new_images.ingest_pending(spark, lake, source_listing.listing(str(source)))
    rolled_out(lake, "--retry", "model_failed")
    now = ledger.read(lake).serving(POINTER)
    assert (ill.version, 11, 0) == (now.version.version, now.covered.predicted, now.covered.errors)
    reasons = [entry.reason for entry in ledger.read(lake).entries]
    assert any(reason.startswith("retries errors (model_failed: 3, found") for reason in reasons)


@pytest.mark.spark
def test_a_fault_of_the_machine_leaves_the_version_scoring_and_the_next_run_goes_on(
    spark, client, lake, source, tmp_path
):
    mended = tmp_path / "mended"
    version = register_colours("retried", fault="disk", mended=mended)
    registry.move(client, version, alias="champion")
    [line] = rolled_out(lake, code=1).strip().splitlines()[-1:]
    assert "was not scored, as the machine failed: 2 times OSError: [Errno 5]" in line
    assert "scoring" == ledger.read(lake).rows(POINTER)[-1].state
    mended.touch()
    rolled_out(lake)
    assert version.version == ledger.read(lake).serving(POINTER).version.version
