"""The report compares quantized versions with those that they were made from."""

import pytest

from mlproject.reporting import lake_report
from tests.support.lakes import add_images, add_predictions, add_rollout, day, version

pytestmark = pytest.mark.spark

OLD, NEW, SMALL = version(1), version(2), version(1, "m-small", "small")


def test_a_quantized_version_is_compared_with_its_source_whatever_their_models(spark, lake):
    ids = add_images(lake, [1])
    for number, one in enumerate((OLD, NEW, SMALL)):
        label = "rose" if one == OLD else "daisy"
        add_predictions(lake, one, ids, day(1 + number), label=label)
    add_rollout(lake, "models:/photos@champion", OLD, "serving", day(5))

    def pairs(**sources):
        data = lake_report.collect(spark, lake, lambda one: sources.get(one.name, ""))
        return [(found.version, found.other, found.different) for found in data.differences]

    assert [(OLD, NEW, 1)] == pairs()
    assert [(SMALL, OLD, 1), (OLD, NEW, 1)] == pairs(small=OLD.uri)
    assert [(SMALL, NEW, 0), (OLD, NEW, 1)] == pairs(small=NEW.uri)
    assert [(OLD, NEW, 1)] == pairs(small="models:/gone/1")
    # NEW was made from OLD: the same two versions are not shown twice.
    by_number = {NEW: OLD.uri}
    data = lake_report.collect(spark, lake, lambda one: by_number.get(one, ""))
    assert [(NEW, OLD)] == [(found.version, found.other) for found in data.differences]
