"""Replays of what Spark writes."""

import mlflow
import pytest

from mlproject.ingestion import new_images, source_listing
from mlproject.replays import replaying
from mlproject.scoring import scorer, scoring_runs
from mlproject.versions import version_files
from tests.conftest import photos
from tests.support.versions import register_colours

pytestmark = pytest.mark.spark


def test_a_row_of_spark_is_replayed_without_spark(spark, store, lake, tmp_path):
    source = photos(tmp_path / "source", 3, "red")
    new_images.ingest_pending(spark, lake, source_listing.listing(str(source)))
    client, made = mlflow.MlflowClient(), register_colours("photos")
    run_id = client.create_run("0").info.run_id
    scored = scorer.score_pending(spark, lake, made, settings=scorer.Settings(run_id=run_id))
    files = version_files.read(made)
    scoring_runs.describe(client, run_id, made, files, "local[2]")
    scoring_runs.log(client, run_id, scored)
    row = replaying.find_row(client, lake, made.uri, str(source / "red" / "000.jpg"))
    found = replaying.replay_row(client, lake, *row, 0)
    assert ((), (), ()) == (found.differences, found.causes, found.notes)
    assert ("red", found.now.top) == (found.then.label, found.then.top)
