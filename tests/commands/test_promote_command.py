"""`promote` with gates: what it moves, what it prints, what it leaves in the registry."""

import json

import mlflow
import pytest

from mlproject.gates import approvals
from mlproject.ingestion import new_images, source_listing
from mlproject.rollout import ledger
from mlproject.versions import registry, version_files
from tests.conftest import photos, start_command
from tests.support.commands import run_command
from tests.support.lakes import add_images, add_predictions, add_rollout, frame
from tests.support.versions import register_colours

pytestmark = pytest.mark.spark

IMAGES, SAMPLE = 40, 25


@pytest.fixture
def versions(client):
    """Two versions of a model: the first serves, the second turns colours round."""
    first, second = register_colours("gated"), register_colours("gated", reverse=True)
    registry.move(client, first, alias="champion")
    return first, second


def pointer(version):
    return f"models:/{version.name}@champion"


@pytest.fixture
def served(spark, lake, versions, tmp_path):
    """A lake of labelled photos which the first version predicted right."""
    photos(tmp_path / "source", IMAGES // 2, "red")
    photos(tmp_path / "source", IMAGES // 2, "green", seed=1)
    new_images.ingest_pending(spark, lake, source_listing.listing(str(tmp_path / "source")))
    rows = frame(lake, "images")
    for label in ("red", "green"):
        add_predictions(lake, versions[0], rows[rows.label == label].image_id, label=label)
    add_rollout(lake, pointer(versions[0]), versions[0], "serving")
    return lake


def promote(lake, version, *options, code=0):
    return run_command("promote", "--model", version.uri, "--lake", lake, *options, code=code)


def named(client, version):
    return registry.resolve(client, pointer(version)).uri


def tags(client, version):
    found = client.get_model_version(version.name, str(version.version)).tags
    return {key for key in found if key.startswith("mlproject.")}


def last_run():
    return mlflow.last_active_run()


def answers(lake, version):
    rows = frame(lake, "predictions")
    return rows[rows.model_id == version.model_id]


def test_a_worse_version_is_refused_and_nothing_moves(served, versions, client):
    first, second = versions
    result = promote(served, second, "--max_changed", "0.4", code=3)
    assert "refused by drop, changed" in result.stderr
    assert (first.uri, set()) == (named(client, first), tags(client, second))
    output = result.stdout
    assert all(len(line) <= 100 for line in output.splitlines())
    assert "accuracy on all images drops by 50.0 %" in output
    logged = last_run()
    assert ("FAILED", "refused", second.uri) == (
        logged.info.status,
        logged.data.tags["mlproject.gate"],
        logged.data.tags["mlproject.version"],
    )
    # Of the colours the model turns red and blue round, and leaves green.
    figures = {"changed_share": 0.5, "accuracy": 0.5, "accuracy_drop": 0.5}
    assert figures == {name: round(logged.data.metrics[name], 1) for name in figures}
    page = mlflow.artifacts.load_text(f"{logged.info.artifact_uri}/gates.html")
    assert "data:image/jpeg;base64," in page
    table = mlflow.load_table("changed.json", run_ids=[logged.info.run_id])
    assert {("red", "blue")} == set(zip(table.before, table.after, strict=True))


def test_the_sample_is_scored_once_whatever_the_options_and_rescore_does_the_rest(
    served, versions, client, capfd
):
    first, second = versions
    options = ("--sample", str(SAMPLE), "--gate", "warn", "--require_approval", "true")
    capfd.readouterr()
    result = promote(served, second, *options, "--approve", "true", "--dry_run", "true", "--json")
    facts = json.loads(result.stdout)
    assert "" == capfd.readouterr().out  # of processes and libraries
    assert (first.uri, set()) == (named(client, first), tags(client, second))
    assert ("warned", False, first.uri, second.uri, SAMPLE) == (
        facts["gate"],
        facts["moved"],
        facts["before"],
        facts["version"],
        facts["changes"]["images"],
    )
    gates = {verdict["gate"]: verdict["verdict"] for verdict in facts["gates"]}
    assert ("passed", "refused") == (gates["approval"], gates["drop"])
    kept = answers(served, second)
    assert (SAMPLE, SAMPLE) == (len(kept), kept.image_id.nunique())
    assert last_run().info.run_id == kept.run_id.unique()
    result = promote(served, second, *options, "--approve", "true")
    assert SAMPLE == len(answers(served, second))
    found = client.get_model_version(second.name, str(second.version)).tags
    assert version_files.read(second).digest == found[version_files.DIGEST]
    assert "warned" == last_run().data.tags["mlproject.gate"]
    moved = f"{pointer(first)}: {first.uri} -> {second.uri}"
    assert moved == result.stdout.splitlines()[-1]
    output = run_command("rescore", "--lake", served).stdout
    assert f": {IMAGES - SAMPLE} images scored" in output
    assert IMAGES == answers(served, second).image_id.nunique() == len(answers(served, second))
    rolled_out = ledger.read(served).serving(pointer(second)).run_id
    assert ["gates.html"] == [file.path for file in client.list_artifacts(rolled_out)]


def test_off_checks_nothing_and_moves(served, versions, client):
    first, second = versions
    result = promote(served, second, "--gate", "off")
    assert f"{pointer(first)}: {first.uri} -> {second.uri}\n" == result.stdout
    assert (second.uri, 0) == (named(client, second), len(answers(served, second)))
    assert {"mlproject.digest"} == tags(client, second)


def test_without_a_lake_it_moves_and_checks_nothing(versions, client, tmp_path):
    first, second = versions
    result = promote(str(tmp_path / "none"), second)
    assert f"{pointer(first)}: {first.uri} -> {second.uri}\n" == result.stdout
    assert not (tmp_path / "none").exists()
    assert "off" == last_run().data.tags["mlproject.gate"]


def test_a_first_version_is_checked_on_request(versions, client, tmp_path):
    first, _ = versions
    result = promote(str(tmp_path / "none"), first, "--gate", "block")
    assert "all reference images give the expected results" in result.stdout
    assert "passed" == last_run().data.tags["mlproject.gate"]


def test_a_fault_of_the_machine_refuses_nothing_and_moves_nothing(served, versions, client):
    unlucky = register_colours("gated", fault="memory")
    result = promote(served, unlucky, code=1)
    line = "mlproject promote: The reference images were not predicted, as the machine failed: "
    assert f"{line}MemoryError. Run it again" == result.stderr.strip()
    assert versions[0].uri == named(client, unlucky)


def test_an_approval_records_who_and_when_and_of_which_files(versions, client, tmp_path):
    first, second = versions
    result = promote(str(tmp_path), second, "--require_approval", "true", code=3)
    assert "refused by approval" in result.stderr
    assert (first.uri, set()) == (named(client, first), tags(client, second))
    promote(str(tmp_path), second, "--require_approval", "true", "--approve", "true")
    assert second.uri == named(client, second)
    found = client.get_model_version(second.name, str(second.version)).tags
    assert {approvals.BY, approvals.AT, approvals.FILES} <= set(found)
    assert last_run().data.tags["mlflow.user"] == found[approvals.BY]
    promote(str(tmp_path), second, "--alias", "other", "--require_approval", "true")


def test_a_version_whose_files_changed_since_it_was_promoted_is_not_promoted_again(
    versions, client, store, tmp_path
):
    first, second = versions
    promote(str(tmp_path), second)
    promote(str(tmp_path), first)
    (code,) = store.rglob(f"{second.model_id}/**/colour_model.py")
    code.write_text(code.read_text() + "# another\n")
    assert "refused by files" in promote(str(tmp_path), second, code=3).stderr
    assert first.uri == named(client, first)


@pytest.mark.parametrize("option", ["min_accuracy", "max_drop", "max_changed", "sample"])
def test_a_limit_out_of_its_range_is_refused(store, option):
    result = run_command("promote", "--model", "models:/x/1", f"--{option}", "-1", code=2)
    assert option in result.stderr


def test_as_a_process_a_refusal_is_exit_code_3_with_a_line_a_gate(versions, client, lake, tmp_path):
    first, second = versions
    ids = add_images(lake, range(9), label="red")
    for version in versions:
        add_predictions(lake, version, ids, label="green")
    add_rollout(lake, pointer(first), first, "serving")
    process = start_command("promote", "--model", second.uri, "--min_accuracy", "0.9", cwd=tmp_path)
    output, _ = process.communicate(timeout=200)
    assert 3 == process.returncode, output
    lines = output.splitlines()
    [refusal] = [line for line in lines if line.startswith("mlproject promote: ")]
    assert [refusal] == [line for line in lines if len(line) > 100]
    gates = [line.split()[:2] for line in lines[1:8]]
    assert ["files", "requirements", "reference_images", "sample"] == [
        gate for gate, _ in gates[:4]
    ]
    assert ["accuracy", "refused"] in gates
    assert refusal.endswith(f"stays on {first.uri}: {second.uri} is refused by accuracy")
    assert first.uri == named(client, first)
