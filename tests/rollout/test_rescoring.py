"""The public function `rescore` where nothing is left to score, so no Spark starts."""

import mlflow
import pytest
from pyspark import SparkContext

from mlproject.errors import RefusedError, UserError
from mlproject.rollout import ledger
from mlproject.rollout.rescoring import rescore
from mlproject.versions import registry
from tests.support.lakes import add_images, add_predictions, add_rollout, image_id
from tests.support.rollouts import POINTER, point

STAGE = "models:/photos/Production"


@pytest.fixture
def predicted(client, lake, versions):
    """A lake of three images that the first two versions have predicted."""
    add_images(lake, range(3))
    for version in versions[:2]:
        add_predictions(lake, version, map(image_id, range(3)))
    return lake


def last_run():
    [run] = mlflow.search_runs(
        filter_string="tags.`mlproject.verb` = 'rescore'", max_results=1, output_format="list"
    )
    return run


def test_a_moved_alias_serves_at_once_without_spark(client, predicted, versions):
    before = SparkContext._active_spark_context  # of other tests
    for version in versions[:2]:
        point(client, version)
        [rollout] = rescore([POINTER], predicted).rollouts
        assert (version, "serving", True, None) == (
            registry.resolve(client, rollout.version.uri),
            rollout.state,
            rollout.switched,
            rollout.scored,
        )
    assert before is SparkContext._active_spark_context
    run = last_run()
    assert (0, 1.0) == (run.data.metrics["images"], run.data.metrics["coverage"])
    assert f"{POINTER} = models:/photos/2" == run.data.tags["mlproject.serving"]
    assert (POINTER, "false") == (run.data.params["pointers"], run.data.params["retry"])


def test_all_aliases_of_the_table_are_rolled_out_when_none_is_named(client, predicted, versions):
    point(client, versions[0])
    registry.move(client, versions[0], stage="Production")
    rescore([POINTER, STAGE], predicted)
    point(client, versions[1])
    found = {one.version.pointer: one.version.version for one in rescore([], predicted).rollouts}
    assert {POINTER: 2, STAGE: 1} == found


def test_an_alias_that_fails_does_not_stop_the_others(client, predicted, versions):
    point(client, versions[0])
    add_rollout(predicted, STAGE, versions[1], "failed", reason="too slow")
    registry.move(client, versions[1], stage="Production")
    faults, rollouts = [], []
    with pytest.raises(RefusedError, match="not every alias"):
        rescore(
            [STAGE, "models:/nobody@champion", POINTER],
            predicted,
            on_fault=faults.append,
            on_rollout=rollouts.append,
        )
    assert [POINTER] == [one.version.pointer for one in rollouts]
    assert [STAGE, "models:/nobody@champion"] == [fault.partition(": ")[0] for fault in faults]
    assert "FAILED" == last_run().info.status


def test_the_only_alias_raises_its_own_error(client, predicted, versions):
    with pytest.raises(UserError, match="has no alias 'champion'"):
        rescore([POINTER], predicted)


def test_a_run_that_is_stopped_returns_so_and_is_marked_killed(client, predicted, versions):
    point(client, versions[0])
    result = rescore([POINTER], predicted, stop=lambda: True)
    assert ((), True) == (result.rollouts, result.stopped)
    assert ("KILLED", []) == (last_run().info.status, ledger.read(predicted).rows(POINTER))


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"max_images": -1}, "max_images=-1 is below 0"),
        ({"max_minutes": float("nan")}, "max_minutes=nan is below 0"),
        ({"min_coverage": 1.1}, "min_coverage=1.1 is not between 0 and 1"),
        ({"max_error_rate": -0.1}, "max_error_rate=-0.1 is not between 0 and 1"),
        ({"task_timeout": 0}, "task_timeout=0 is not above 0"),
    ],
)
def test_an_option_out_of_its_range_is_an_error(lake, option, message):
    with pytest.raises(UserError, match=message):
        rescore([POINTER], lake, **option)
