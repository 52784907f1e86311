"""The whole life cycle, as a newcomer starts it: `mlflow run .` in a fresh copy of the project."""

import re
import shutil
from pathlib import Path

import mlflow
import pytest

from tests.conftest import PROJECT
from tests.support.fresh_processes import mlflow_run
from tests.support.lakes import frame

pytestmark = [pytest.mark.spark, pytest.mark.slow]

PARTS = ("MLproject", "conda.yaml", "models", "pipelines", "src")


@pytest.fixture(scope="module")
def copy(tmp_path_factory) -> Path:
    """A copy of what runs, in a folder that has no relation to this checkout."""
    folder = tmp_path_factory.mktemp("copy")
    for part in PARTS:
        if (PROJECT / part).is_dir():
            shutil.copytree(PROJECT / part, folder / part)
        else:
            shutil.copy(PROJECT / part, folder / part)
    return folder


def run(copy: Path, *arguments: str, **environment: str) -> str:
    return mlflow_run(copy, ".", *arguments, **environment)


def table(copy: Path, name: str):
    return frame(str(copy / "lake"), name)


@pytest.fixture(scope="module")
def output(copy) -> str:
    return run(copy, "--env-manager", "local")


@pytest.fixture
def client(copy) -> mlflow.MlflowClient:
    return mlflow.MlflowClient(f"sqlite:///{copy}/mlflow.db", f"sqlite:///{copy}/mlflow.db")


def test_both_frameworks_predict_nine_in_ten_held_out_images_correctly(output):
    accuracies = re.findall(
        r"\((keras|torch), 4 labels\) on \d+ images: accuracy ([\d.]+)%", output
    )
    assert ["keras", "torch"] == [framework for framework, _ in accuracies]
    assert all(float(accuracy) >= 90 for _, accuracy in accuracies)


def test_onnxruntime_runs_both_networks_once_they_were_compared(output, client):
    for version in ("1", "2"):
        tags = client.get_model_version("photos", version).tags
        found = [tags[name] for name in ("engine", "parity_top1_agreement")]
        assert ["onnxruntime", 1.0] == [found[0], float(found[1])]


def test_each_version_predicts_every_image_once(output, copy):
    ids = table(copy, "images").image_id.nunique()
    answers = table(copy, "predictions")
    assert not answers.duplicated(["image_id", "model_name", "model_version", "model_id"]).any()
    assert {1: ids, 2: ids} == dict(answers.model_version.value_counts())


def test_a_score_stands_beside_a_label_and_an_error_beside_neither(output, copy):
    answers = table(copy, "predictions")
    fine = answers[answers.error.isna()]
    assert fine.label.notna().all()
    assert not fine.label.isin(["", "nan", "None"]).any()
    assert fine.score.between(0, 1).all()
    bad = answers[answers.error.notna()]
    assert len(bad)
    assert bad.label.isna().all()
    assert bad.score.isna().all()


def test_the_serving_version_is_the_one_that_the_alias_names(output, copy, client):
    ledger = table(copy, "rollouts").sort_values("at")
    ledger = ledger[ledger.state == "serving"]
    assert [1, 2, 1] == list(ledger.model_version)
    alias = client.get_model_version_by_alias("photos", "champion")
    assert int(alias.version) == ledger.iloc[-1].model_version
    assert "nothing to score" in output.split("== rescore")[3]


def test_each_step_is_a_run_below_mains(output, client):
    runs = client.search_runs(["0"])
    main = next(run for run in runs if run.info.run_name == "main")
    steps = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == main.info.run_id]
    names = sorted(run.info.run_name for run in steps)
    expected = ["ingest", *["promote"] * 3, "report", *["rescore"] * 3, *["train"] * 2]
    assert expected == names
    assert {"FINISHED"} == {run.info.status for run in runs}
    rescored = [run.data.metrics for run in steps if run.info.run_name == "rescore"]
    for metrics in rescored:
        assert {"images", "images_per_second", "errors", "coverage"} <= set(metrics)


def test_the_report_is_one_file_that_needs_no_network(output, copy):
    page = (copy / "report.html").read_text(encoding="utf-8")
    assert "data:image/jpeg;base64," in page
    assert not re.search(r'(src|href)="(https?:)?//', page)
