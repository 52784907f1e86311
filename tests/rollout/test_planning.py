"""Plans: what each pointer would cost, from ids and metadata alone."""

import json

import mlflow
import pytest

from mlproject.errors import RefusedError, UserError
from mlproject.rollout import ledger, planning
from mlproject.scoring import scoring_runs
from mlproject.versions import registry
from mlproject.versions.version_files import Files
from tests.support.commands import run_command
from tests.support.lakes import (
    add_images,
    add_predictions,
    commit_predictions,
    image_id,
    register,
    scored,
)
from tests.support.rollouts import POINTER, Scorer, point, reconcile

SESSION = "local[2]"
STAGE = "models:/photos/Production"


@pytest.fixture
def versions(client, lake):
    add_images(lake, range(10), size_bytes=2000)
    return [register(client, "photos") for _ in range(2)]


def plan(client, lake, pointers=(POINTER,), **options):
    return planning.alias_plans(client, lake, list(pointers), SESSION, **options)


def measure(client, lake, version, images, session=SESSION, framework="torch"):
    """A run as score logs it, of so many images in a second."""
    client.set_model_version_tag(version.name, str(version.version), "framework", framework)
    with mlflow.start_run() as run:
        files = Files("digest", (), "preprocessing")
        scoring_runs.describe(client, run.info.run_id, version, files, session)
        scoring_runs.log(client, run.info.run_id, scored(lake, images))
    return run.info.run_id


def test_an_alias_that_was_never_rolled_out_is_scored_whole(client, lake, versions):
    point(client, versions[0])
    [found] = plan(client, lake)
    assert ("score", None) == (found.action, found.serving)
    assert (10, 20_000) == (found.target.coverage.missing, found.target.size_bytes)
    assert found.target.seconds is None


def test_a_plan_writes_nothing(client, lake, versions, tmp_path):
    point(client, versions[0])
    before = sorted(tmp_path.rglob("*"))
    plan(client, lake)
    assert before == sorted(tmp_path.rglob("*"))


def test_every_action_has_its_reason(client, lake, versions):
    first, second = versions
    point(client, first)
    reconcile(client, lake)
    assert ("nothing", "every image is predicted") == decided(plan(client, lake))
    add_images(lake, [10])
    assert ("score", "new images") == decided(plan(client, lake))
    point(client, second)
    assert ("score", "moved from models:/photos/1") == decided(plan(client, lake))
    with pytest.raises(RefusedError):
        reconcile(client, lake, Scorer(lake, bad=frozenset(map(image_id, range(11)))))
    action, why = decided(plan(client, lake))
    assert ("refused", True) == (action, why.startswith("failed before: errors on "))
    assert "score" == decided(plan(client, lake, retry=True))[0]
    point(client, first)
    assert "nothing" == decided(plan(client, lake))[0]
    client.delete_registered_model_alias("photos", "champion")
    assert "lost" == decided(plan(client, lake))[0]


def test_a_plan_that_verifies_refuses_counts_that_are_not_those_of_all_ids(client, lake, versions):
    point(client, versions[0])
    reconcile(client, lake)
    add_images(lake, [10])
    # As no command does: a row of no image, in a commit that only `score` makes.
    commit_predictions(lake, versions[0], [image_id(99)])
    assert [] == plan(client, lake)[0].work
    with pytest.raises(RefusedError, match="Run rescore -P verify=true"):
        plan(client, lake, verify=True)
    assert (11, 11, 0) == reconcile(client, lake, verify=True).coverage.counts


def decided(plans):
    return plans[0].action, plans[0].reason


def test_going_back_is_planned_as_a_switch(client, lake, versions):
    for version in (*versions, versions[0]):
        point(client, version)
        if version != versions[0] or ledger.read(lake).serving(POINTER) is None:
            reconcile(client, lake)
    assert ("switch", "moved from models:/photos/2; every image is predicted") == (
        decided(plan(client, lake))
    )


def test_an_image_in_several_files_counts_once(client, lake, versions):
    add_images(lake, range(5), path="/photos/copy.jpg")
    point(client, versions[0])
    assert 10 == plan(client, lake)[0].target.coverage.missing


def test_time_is_estimated_from_the_version_itself_on_the_same_kind_of_session(
    client, lake, versions
):
    first, second = versions
    point(client, first)
    measure(client, lake, first, 5, session="local[64]")
    assert plan(client, lake)[0].target.rate is None
    measure(client, lake, second, 4)
    assert 10 / 4 == plan(client, lake)[0].target.seconds
    assert "by a torch version" in plan(client, lake)[0].target.rate.source
    run_id = measure(client, lake, first, 5)
    measure(client, lake, first, 1)  # of which the start of the workers was most
    rate = plan(client, lake)[0].target.rate
    assert (5.0, 5) == (rate.images_per_second, rate.images)
    assert f"5 images by models:/photos/1 in run {run_id[:8]}, local[2]" == rate.source


def left(plans, **limits):
    return [one.left for one in planning.limited(plans, **limits)]


def test_limits_are_shared_by_all_aliases_and_what_is_left_is_counted(client, lake, versions):
    point(client, versions[0])
    registry.move(client, versions[1], stage="Production")
    plans = plan(client, lake, [POINTER, STAGE])
    assert [0, 0] == left(plans)
    assert [0, 7] == left(plans, max_images=13)
    assert [5, 10] == left(plans, max_bytes=10_000)


def test_images_that_the_serving_version_lacks_are_planned_first(client, lake, versions):
    point(client, versions[0])
    reconcile(client, lake)
    add_images(lake, [10, 11])
    point(client, versions[1])
    [found] = plan(client, lake)
    assert [(1, 2), (2, 12)] == [
        (missing.version.version, missing.coverage.missing) for missing in found.work
    ]


def test_without_an_alias_or_a_table_the_error_names_the_next_command(client, lake):
    with pytest.raises(UserError, match="-e ingest"):
        plan(client, lake, [])
    add_images(lake, [1])
    with pytest.raises(UserError, match="-e rescore -P pointers="):
        plan(client, lake, [])


def test_an_alias_that_is_given_and_names_no_version_is_an_error(client, lake, versions):
    point(client, versions[0])
    reconcile(client, lake)
    pointers = f"models:/photos@chamption,{POINTER}"
    result = run_command("plan", "--lake", lake, "--pointers", pointers, code=2)
    assert "has no alias 'chamption'" in result.stderr
    assert f"{POINTER}: nothing. Reason: " in result.stdout
    client.delete_registered_model_alias("photos", "champion")
    assert f"{POINTER}: it names no version. Reason: " in run_command("plan", "--lake", lake).stdout


def test_the_table_has_at_most_100_columns_and_json_has_the_same(client, lake, versions):
    name = "a_rather_long_name_of_a_registered_model_of_someone_s_photos"
    long = register(client, name)
    registry.move(client, long, alias="champion_of_all_the_champions_so_far")
    point(client, versions[0])
    add_predictions(lake, versions[0], map(image_id, range(4)))
    pointers = f"{POINTER},models:/{name}@champion_of_all_the_champions_so_far"
    words = ("plan", "--lake", lake, "--pointers", pointers)
    table = run_command(*words).stdout
    assert max(map(len, table.splitlines())) <= 100
    assert name in table.replace("\n", "")
    facts = json.loads(run_command(*words, "--json").stdout)
    assert [6, 10] == [fact["version"]["missing"] for fact in facts]
    assert [12_000, 20_000] == [fact["version"]["missing_bytes"] for fact in facts]
    assert [None, None] == [fact["readers"] for fact in facts]
