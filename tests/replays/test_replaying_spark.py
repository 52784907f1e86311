"""Replays of what Spark writes."""

import mlflow
import pytest

from mlproject.ingestion import new_images, source_listing
from mlproject.replays import replaying
from mlproject.scoring import scorer, scoring_runs
from mlproject.versions import version_files
from tests.conftest import photos
from tests.support.networks import COLOURS, register_network
from tests.support.versions import register_colours

pytestmark = pytest.mark.spark


@pytest.fixture(params=["python", "onnxruntime"])
def made(store, request):
    """A version, of code alone or with a network in ONNX."""
    if request.param == "python":
        return register_colours("photos")
    return register_network(store / "network", "networks", list(COLOURS))


def test_a_row_of_spark_is_replayed_without_spark(spark, made, lake, tmp_path):
    source = photos(tmp_path / "source", 3, "red")
    new_images.ingest_pending(spark, lake, source_listing.listing(str(source)))
    client = mlflow.MlflowClient()
    run_id = client.create_run("0").info.run_id
    scored = scorer.score_pending(spark, lake, made, settings=scorer.Settings(run_id=run_id))
    files = version_files.read(made)
    scoring_runs.describe(client, run_id, made, files, "local[2]")
    scoring_runs.log(client, run_id, scored)
    row = replaying.find_row(client, lake, made.uri, str(source / "red" / "000.jpg"))
    found = replaying.replay_row(client, lake, *row, 0)
    assert ((), (), ()) == (found.differences, found.causes, found.notes)
    assert ("red", found.now.top) == (found.then.label, found.then.top)
