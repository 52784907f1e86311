"""Histories and replays against what Spark reads and writes."""

import mlflow
import pytest

from mlproject.errors import UserError
from mlproject.ingestion import new_images, source_listing
from mlproject.rollout import history, ledger, replaying, serving
from mlproject.scoring import scorer, scoring_runs
from mlproject.versions import version_files
from tests.conftest import photos
from tests.support.lakes import day, say, tell, version
from tests.support.versions import register_colours

pytestmark = pytest.mark.spark

POINTER = "models:/photos@champion"


def test_what_readers_saw_is_the_same_with_spark_and_without(spark, lake):
    """A serves from day 2, B from day 4; an image came on day 5, and one clock was ahead."""
    first, second, pointer = version(1), version(2), POINTER
    for one, at, label in ((first, 1, "red"), (second, 9, "blue")):
        say(lake, one, ["0" * 64], day(at), label=label, images_version=3)
    say(lake, second, ["1" * 64], day(5), label="green", images_version=4)
    tell(lake, pointer, first, "serving", day(2))
    tell(lake, pointer, second, "serving", day(4))
    page = ledger.read(lake)
    expected = {"2026-01-02": ["red"], "2026-01-04T00:00:00+01:00": ["red"]}
    expected |= {"2026-01-04T00:00:00": ["blue"], "2026-01-05": ["blue", "green"]}
    for at, labels in expected.items():
        rows = serving.current(spark, lake, pointer, at=at).collect()
        assert labels == sorted(row.label for row in rows)
        found = history.seen(lake, page, pointer, ledger.moment(at))
        assert labels == sorted(label for label, _ in found.labels)


def test_before_a_pointer_was_served_readers_saw_nothing(spark, lake):
    pointer = POINTER
    tell(lake, pointer, version(1), "serving", day(2))
    with pytest.raises(UserError, match=r"the first one did at 2026-01-02T00:00:00 \(UTC\)"):
        serving.current(spark, lake, pointer, at="2026-01-01")


def test_a_row_of_spark_is_replayed_without_spark(spark, store, lake, tmp_path):
    source = photos(tmp_path / "source", 3, "red")
    new_images.ingest_pending(spark, lake, source_listing.listing(str(source)))
    client, made = mlflow.MlflowClient(), register_colours("photos")
    run_id = client.create_run("0").info.run_id
    scored = scorer.score_pending(spark, lake, made, settings=scorer.Settings(run_id=run_id))
    files = version_files.read(made)
    scoring_runs.describe(client, run_id, made, files, "local[2]")
    scoring_runs.log(client, run_id, scored)
    row = replaying.find(client, lake, made.uri, str(source / "red" / "000.jpg"))
    found = replaying.replay(client, lake, row, tolerance=0)
    assert ((), (), ()) == (found.differences, found.causes, found.notes)
    assert ("red", found.now.top) == (found.then.label, found.then.top)
