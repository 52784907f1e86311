"""A quantized version in gates, plan, rescore, history, rollback and report, like any other."""

import mlflow
import pytest

import mlproject
from mlproject.ingestion import new_images, source_listing
from mlproject.reporting import report_queries
from mlproject.rollout import runs
from tests.support.lakes import frame
from tests.support.networks import many_colours, register_network
from tests.support.pages import changed_images

pytestmark = pytest.mark.spark

POINTER = "models:/guesses@champion"


def rolled_out(lake) -> str:
    [rollout] = mlproject.rescore([POINTER], lake).rollouts
    assert "serving" == rollout.state
    return rollout.version.uri


def changes(lake, before, after) -> set[tuple[str, str]]:
    """(image_id, label) of the images for which the second version has another label."""
    rows = frame(lake, "predictions")
    labels = rows.pivot(index="image_id", columns="model_id", values="label")
    changed = labels[labels[before.model_id] != labels[after.model_id]]
    return set(changed[after.model_id].items())


def shows(pictures, image_id, label) -> bool:
    """Whether an image is shown with its thumbnail and this label."""
    words = (f"image_id {image_id}", "data:image/jpeg;base64,", f">{label}<", "guesses 2")
    return any(all(word in picture for word in words) for picture in pictures)


def test_a_quantized_version_is_promoted_rolled_out_compared_and_rolled_back(
    spark, store, lake, tmp_path
):
    source = tmp_path / "source"
    source.mkdir()
    for number, content in enumerate(many_colours(60)):
        (source / f"{number:02}.jpg").write_bytes(content)
    listing = source_listing.listing(str(source), settle=0)
    new_images.ingest_pending(spark, lake, listing)
    float32 = register_network(store / "float32", "guesses", [f"label {n}" for n in range(200)])
    mlproject.promote(float32.uri, lake=lake)
    assert float32.uri == rolled_out(lake)

    int8 = mlproject.quantize(float32.uri, lake=lake, min_agreement=0).version
    result = mlproject.promote(int8.uri, lake=lake)
    assert ("passed", True) == (result.outcome, result.moved)
    [plan] = mlproject.plan([POINTER], lake).aliases
    assert ("switch", int8.uri) == (plan.action, plan.target.version.uri)
    assert int8.uri == rolled_out(lake)

    changed = changes(lake, float32, int8)
    assert changed, "the network predicts the same labels in int8"
    shown = {one.image.image_id for one in result.results.comparison.difference.changes}
    assert {image_id for image_id, _ in changed} == shown
    [run] = mlflow.search_runs(
        filter_string="tags.`mlproject.verb` = 'promote'", max_results=1, output_format="list"
    )
    page = mlflow.artifacts.load_text(f"{run.info.artifact_uri}/{runs.GATES}")
    report = mlproject.report(lake, out=str(tmp_path / "report.html")).file.read_text()
    for html in (page, report):
        pictures = changed_images(html)
        assert min(len(changed), report_queries.DIFFERENT) <= len(pictures)
        found = {
            (image_id, label) for image_id, label in changed if shows(pictures, image_id, label)
        }
        assert len(pictures) == len(found)

    mlproject.promote(float32.uri, lake=lake)
    [plan] = mlproject.plan([POINTER], lake).aliases
    assert "switch" == plan.action  # its predictions are there: nothing is scored again
    assert float32.uri == rolled_out(lake)
    [aliases] = mlproject.history([POINTER], lake).histories
    assert [1, 2, 1] == [one.version.version for one in aliases.served]
