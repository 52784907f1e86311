import pytest

from mlproject.errors import UserError
from mlproject.ingestion import new_images, source_listing
from mlproject.lake import spark_tables
from mlproject.rollout import ledger, reconciliation, serving
from mlproject.scoring import scorer
from mlproject.versions import registry
from tests.conftest import photo, photos
from tests.support.rollouts import work
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


def follow(spark, client, lake, pointer, before=lambda version: None):
    def score(version, stop):
        before(version)
        return scorer.score_pending(spark, lake, version, stop=stop)

    return reconciliation.follow(client, lake, pointer, work(score))


def seen(spark, lake, pointer):
    rows = serving.current(spark, lake, pointer).select("label", "model_version").collect()
    return sorted((row.model_version, row.label) for row in rows)


def test_readers_follow_a_moved_pointer(spark, client, lake, source, versions, pointer):
    first, second = versions
    point(client, pointer, first)
    assert 5 == follow(spark, client, lake, pointer).images
    assert [(first.version, "red")] * 5 == seen(spark, lake, pointer)
    point(client, pointer, second)
    assert [(first.version, "red")] * 5 == seen(spark, lake, pointer)
    followed = follow(spark, client, lake, pointer)
    assert (first.uri, second.uri) == (followed.before.uri, followed.version.uri)
    assert [(second.version, "blue")] * 5 == seen(spark, lake, pointer)


def test_going_back_scores_nothing(spark, client, lake, source, versions, pointer):
    for version in versions:
        point(client, pointer, version)
        follow(spark, client, lake, pointer)
    point(client, pointer, versions[0])
    back = follow(spark, client, lake, pointer)
    assert (0, True) == (back.images, back.switched)
    assert [(versions[0].version, "red")] * 5 == seen(spark, lake, pointer)


def test_nothing_moved_and_nothing_came_writes_nothing(spark, client, lake, source, versions):
    pointer = POINTERS["alias"]
    point(client, pointer, versions[0])
    follow(spark, client, lake, pointer)
    before = spark_tables.snapshot(spark, lake, "rollouts").version
    assert not follow(spark, client, lake, pointer).switched
    assert before == spark_tables.snapshot(spark, lake, "rollouts").version


def test_images_that_came_are_scored_and_stand_in_the_ledger(spark, client, lake, source, versions):
    pointer = POINTERS["alias"]
    point(client, pointer, versions[0])
    follow(spark, client, lake, pointer)
    (source / "new.jpg").write_bytes(photo((9, 200, 9), 3))
    version = ingest(spark, lake, source).table_version
    followed = follow(spark, client, lake, pointer)
    assert (1, False) == (followed.images, followed.switched)
    assert version == ledger.read(lake).serving(pointer).covered.images_version


def test_a_pointer_that_moves_while_its_version_is_scored_never_shows_that_version(
    spark, client, lake, source, versions
):
    pointer = POINTERS["alias"]
    first, second = versions
    point(client, pointer, first)

    def move(version):
        if version.version == first.version:
            point(client, pointer, second)

    followed = follow(spark, client, lake, pointer, before=move)
    assert second.uri == followed.version.uri
    assert 5 == followed.images  # none by the version that was left
    rows = [(entry.version.version, entry.state) for entry in ledger.read(lake).entries]
    assert [
        (first.version, "scoring"),
        (first.version, "superseded"),
        (second.version, "scoring"),
        (second.version, "serving"),
    ] == rows


def test_the_ledger_goes_on_when_the_clock_goes_back(spark, client, lake, source, versions):
    pointer = POINTERS["alias"]
    point(client, pointer, versions[0])
    follow(spark, client, lake, pointer)
    since = spark_tables.snapshot(spark, lake, "rollouts", f"rollout:{pointer}")
    future = spark_tables.read(spark, lake, "rollouts").selectExpr(
        "* EXCEPT (at)", "at + INTERVAL 1 DAY AS at"
    )
    spark_tables.append(future.where("state = 'serving'"), since)
    point(client, pointer, versions[1])
    follow(spark, client, lake, pointer)
    assert versions[1].version == ledger.read(lake).serving(pointer).version.version


def test_current_predictions_are_readable_without_spark(spark, client, lake, source, versions):
    import deltalake

    pointer = POINTERS["alias"]
    point(client, pointer, versions[0])
    follow(spark, client, lake, pointer)
    rows = deltalake.DeltaTable(f"{lake}/rollouts").to_pandas()
    now = rows[(rows.pointer == pointer) & (rows.state == "serving")]
    now = now.sort_values("at").iloc[-1]
    predictions = deltalake.DeltaTable(f"{lake}/predictions").to_pandas(
        filters=[
            ("model_name", "=", now.model_name),
            ("model_version", "=", int(now.model_version)),
        ]
    )
    predictions = predictions[predictions.model_id == now.model_id]
    assert 5 == len(predictions) == predictions.image_id.nunique()


def test_a_version_by_number_is_no_pointer(spark, client, lake, source, versions):
    with pytest.raises(UserError, match="never moves"):
        follow(spark, client, lake, versions[0].uri)


def test_a_pointer_that_nobody_follows_is_told_with_those_that_are(
    spark, client, lake, source, versions
):
    point(client, POINTERS["alias"], versions[0])
    follow(spark, client, lake, POINTERS["alias"])
    with pytest.raises(UserError, match="models:/followed@champion"):
        serving.current(spark, lake, "models:/followed@other")
