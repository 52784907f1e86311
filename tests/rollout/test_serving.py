from datetime import timedelta

import pyarrow as pa
import pytest

from mlproject.errors import UserError
from mlproject.ingestion import new_images, source_listing
from mlproject.lake import commits, queries, snapshots
from mlproject.lake.schemas import SCHEMAS
from mlproject.rollout import ledger, serving
from mlproject.scoring import scorer
from mlproject.versions import registry
from tests.conftest import photo, photos
from tests.support import rollouts
from tests.support.lakes import frame
from tests.support.rollouts import Scoring
from tests.support.versions import register_colours

pytestmark = pytest.mark.spark

POINTERS = {"alias": "models:/followed@champion", "stage": "models:/followed/Production"}


@pytest.fixture(scope="module")
def versions(store):
    return register_colours("followed"), register_colours("followed", reverse=True)


@pytest.fixture(params=["alias", "stage"])
def pointer(request):
    return POINTERS[request.param]


@pytest.fixture
def source(spark, lake, tmp_path):
    photos(tmp_path / "source", 5, "red")
    ingest(spark, lake, tmp_path / "source")
    return tmp_path / "source"


def ingest(spark, lake, folder):
    return new_images.ingest_pending(spark, lake, source_listing.listing(str(folder)))


def point(client, pointer, version):
    stage = "Production" if pointer == POINTERS["stage"] else ""
    registry.move(client, version, alias="champion", stage=stage)


def reconcile(spark, client, lake, pointer, before=lambda version: None):
    def score(step, stop):
        before(step.version)
        return scorer.score_pending(spark, lake, step.version, stop=stop)

    return rollouts.reconcile(client, lake, Scoring(score), pointer=pointer)


def seen(spark, lake, pointer):
    rows = serving.current(spark, lake, pointer).select("label", "model_version").collect()
    return sorted((row.model_version, row.label) for row in rows)


def test_the_serving_version_follows_a_moved_alias_or_stage(
    spark, client, lake, source, versions, pointer
):
    first, second = versions
    point(client, pointer, first)
    assert 5 == reconcile(spark, client, lake, pointer).scored.images
    assert [(first.version, "red")] * 5 == seen(spark, lake, pointer)
    point(client, pointer, second)
    assert [(first.version, "red")] * 5 == seen(spark, lake, pointer)
    result = reconcile(spark, client, lake, pointer)
    assert (first.uri, second.uri) == (result.before.uri, result.version.uri)
    assert [(second.version, "blue")] * 5 == seen(spark, lake, pointer)


def test_going_back_scores_nothing(spark, client, lake, source, versions, pointer):
    for version in versions:
        point(client, pointer, version)
        reconcile(spark, client, lake, pointer)
    point(client, pointer, versions[0])
    back = reconcile(spark, client, lake, pointer)
    assert (None, True) == (back.scored, back.switched)
    assert [(versions[0].version, "red")] * 5 == seen(spark, lake, pointer)


def test_no_move_and_no_new_image_writes_nothing(spark, client, lake, source, versions):
    pointer = POINTERS["alias"]
    point(client, pointer, versions[0])
    reconcile(spark, client, lake, pointer)
    before = snapshots.newest(lake, "rollouts").version
    assert not reconcile(spark, client, lake, pointer).switched
    assert before == snapshots.newest(lake, "rollouts").version


def test_new_images_are_scored_and_recorded(spark, client, lake, source, versions):
    pointer = POINTERS["alias"]
    point(client, pointer, versions[0])
    reconcile(spark, client, lake, pointer)
    (source / "new.jpg").write_bytes(photo((9, 200, 9), 3))
    version = ingest(spark, lake, source).table_version
    result = reconcile(spark, client, lake, pointer)
    assert (1, False) == (result.scored.images, result.switched)
    assert version == ledger.read(lake).serving(pointer).covered.images_version


def test_a_version_whose_alias_is_moved_while_it_is_scored_never_serves(
    spark, client, lake, source, versions
):
    pointer = POINTERS["alias"]
    first, second = versions
    point(client, pointer, first)

    def move(version):
        if version.version == first.version:
            point(client, pointer, second)

    result = reconcile(spark, client, lake, pointer, before=move)
    assert second.uri == result.version.uri
    assert 5 == result.scored.images  # none by the version that was left
    rows = [(entry.version.version, entry.state) for entry in ledger.read(lake).entries]
    assert [
        (first.version, "scoring"),
        (first.version, "superseded"),
        (second.version, "scoring"),
        (second.version, "serving"),
    ] == rows


def test_rows_stay_in_order_when_the_clock_goes_back(spark, client, lake, source, versions):
    pointer = POINTERS["alias"]
    point(client, pointer, versions[0])
    reconcile(spark, client, lake, pointer)
    since = snapshots.to_append(lake, "rollouts", f"rollout:{pointer}")
    sql = "SELECT * FROM rollouts WHERE state = 'serving'"
    [row] = queries.query(lake, sql, ["rollouts"]).to_pylist()
    ahead = [{**row, "at": row["at"] + timedelta(days=1)}]
    commits.append_rows(pa.Table.from_pylist(ahead, schema=SCHEMAS["rollouts"]), since)
    point(client, pointer, versions[1])
    reconcile(spark, client, lake, pointer)
    assert versions[1].version == ledger.read(lake).serving(pointer).version.version


def test_current_predictions_are_readable_without_spark(spark, client, lake, source, versions):

    pointer = POINTERS["alias"]
    point(client, pointer, versions[0])
    reconcile(spark, client, lake, pointer)
    rows = frame(lake, "rollouts")
    now = rows[(rows.pointer == pointer) & (rows.state == "serving")]
    now = now.sort_values("at").iloc[-1]
    predictions = frame(lake, "predictions")
    predictions = predictions[predictions.model_id == now.model_id]
    assert 5 == len(predictions) == predictions.image_id.nunique()


def test_a_version_by_number_is_no_alias(spark, client, lake, source, versions):
    with pytest.raises(UserError, match="is a version by number"):
        reconcile(spark, client, lake, versions[0].uri)


def test_an_alias_that_was_never_rolled_out_is_an_error_that_names_those_that_were(
    spark, client, lake, source, versions
):
    point(client, POINTERS["alias"], versions[0])
    reconcile(spark, client, lake, POINTERS["alias"])
    with pytest.raises(UserError, match="models:/followed@champion"):
        serving.current(spark, lake, "models:/followed@other")
