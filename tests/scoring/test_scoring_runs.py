"""The public function `score`: one scoring in an MLflow run of its own."""

import mlflow
import pytest

from mlproject.errors import UserError
from mlproject.ingestion import new_images, source_listing
from mlproject.scoring.scoring_runs import score
from tests.conftest import photos
from tests.support.versions import register_colours

pytestmark = pytest.mark.spark


@pytest.fixture
def filled(spark, lake, tmp_path):
    listing = source_listing.listing(str(photos(tmp_path / "source", 5, "red")))
    new_images.ingest_pending(spark, lake, listing)
    return lake


def last_run():
    return mlflow.search_runs(output_format="list", max_results=1)[0]


def test_a_scoring_returns_what_it_did_and_its_run_records_it(spark, filled, store):
    version = register_colours("public")
    commits = []
    scored = score(version.uri, lake=filled, on_progress=lambda *counts: commits.append(counts))
    assert (version, 5, 1.0) == (scored.version, scored.result.images, scored.coverage.share)
    assert [(5, 5)] == commits
    assert scored.result.summary().startswith("5 images scored in ")
    run = last_run()
    assert ("FINISHED", 5, 1.0) == (
        run.info.status,
        run.data.metrics["images"],
        run.data.metrics["coverage"],
    )
    assert version.uri == run.data.tags["mlproject.version"]


def test_a_scoring_that_is_stopped_is_marked_killed_and_keeps_what_it_has(spark, filled, store):
    version = register_colours("stopped")
    with pytest.raises(KeyboardInterrupt):
        score(version.uri, lake=filled, stop=lambda: True)
    assert "KILLED" == last_run().info.status
    assert 5 == score(version.uri, lake=filled).result.images


def test_a_task_timeout_that_is_no_time_is_the_users_error(filled):
    with pytest.raises(UserError, match="task_timeout=0 is not above 0"):
        score("models:/public/1", lake=filled, task_timeout=0)
