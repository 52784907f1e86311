"""The rules for valid predictions are the same in Spark as in Python."""

import pytest

from mlproject.scoring import prediction_rows
from tests.support.prediction_cases import CASES

pytestmark = pytest.mark.spark

COLUMNS = ("label", "score", "top_labels", "top_scores")
SCHEMA = "number int, returned struct<label: string, score: double, "
SCHEMA += "top_labels: array<string>, top_scores: array<double>>"


def test_spark_gives_each_prediction_the_error_code_that_python_gives(spark):
    rows = [(number, [row[name] for name in COLUMNS]) for number, (row, _, _) in enumerate(CASES)]
    returned = spark.createDataFrame(rows, SCHEMA)
    codes = returned.orderBy("number").select(prediction_rows._fault().alias("code")).collect()
    assert [code for _, code, _ in CASES] == [row.code or "" for row in codes]
