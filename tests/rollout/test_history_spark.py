"""Histories against what Spark reads."""

import pytest

from mlproject.errors import UserError
from mlproject.rollout import history, ledger, serving
from tests.support.lakes import add_predictions, add_rollout, day, version

pytestmark = pytest.mark.spark

POINTER = "models:/photos@champion"


def test_predictions_of_a_time_are_the_same_with_spark_and_without(spark, lake):
    """A serves from day 2, B from day 4; an image came on day 5, and one clock was ahead."""
    first, second, pointer = version(1), version(2), POINTER
    for one, at, label in ((first, 1, "red"), (second, 9, "blue")):
        add_predictions(lake, one, ["0" * 64], day(at), label=label, images_version=3)
    add_predictions(lake, second, ["1" * 64], day(5), label="green", images_version=4)
    add_rollout(lake, pointer, first, "serving", day(2))
    add_rollout(lake, pointer, second, "serving", day(4))
    rollouts = ledger.read(lake)
    expected = {"2026-01-02": ["red"], "2026-01-04T00:00:00+01:00": ["red"]}
    expected |= {"2026-01-04T00:00:00": ["blue"], "2026-01-05": ["blue", "green"]}
    for at, labels in expected.items():
        rows = serving.current(spark, lake, pointer, at=at).collect()
        assert labels == sorted(row.label for row in rows)
        found = history.count_predictions(lake, rollouts, pointer, ledger.moment(at))
        assert labels == sorted(label for label, _ in found.labels)


def test_before_a_version_served_there_are_no_predictions(spark, lake):
    pointer = POINTER
    add_rollout(lake, pointer, version(1), "serving", day(2))
    with pytest.raises(UserError, match=r"the first one at 2026-01-02T00:00:00"):
        serving.current(spark, lake, pointer, at="2026-01-01")
