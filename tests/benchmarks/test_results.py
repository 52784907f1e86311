"""The tables and the chart of a benchmark are made from its record."""

import re
from dataclasses import replace

import pytest

from tests.support.examples import PROJECT


@pytest.fixture(autouse=True)
def benchmarks(monkeypatch):
    monkeypatch.syspath_prepend(str(PROJECT / "benchmarks"))


@pytest.fixture
def results(benchmarks):
    from results import Results

    seconds = {
        "limit": [9.0, 10.0, 14.0],
        "limit_again": [8.0, 9.0, 9.5],
        "cold": [25.0, 25.0, 25.0],
        "warm": [11.0, 10.0, 12.0],
        "ray/onnxruntime/first": [30.0],
        "ray/onnxruntime/second": [22.0],
        "spark_udf/onnxruntime/first": [30.0],
        "spark_udf/onnxruntime/second": [16.5],
        "spark_udf/native/first": [90.0],
        "spark_udf/native/second": [5.0],
    }
    missing = {"daft/onnxruntime": "not installed"}
    return Results(
        "torch", 2000, 113e3, 3, "python benchmarks/score.py", "A machine.", seconds, {}, missing
    )


def test_ratios_are_of_medians_and_with_the_fastest_peer_on_the_same_network(results):
    from results import bars

    found = {bar.title: (round(bar.ratio, 3), bar.least) for bar in bars(results)}
    assert (0.909, 0.9) == found["bare loop of ONNX Runtime / score, warm"]
    assert (0.4, 0.5) == found["bare loop of ONNX Runtime / score, cold"]
    peer = "mlflow.pyfunc.spark_udf, ONNX"
    title = f"fastest peer with the same ONNX network ({peer}) / score, warm"
    assert (1.5, 1.0) == found[title]


def test_many_photos_must_come_closer_to_the_limit_when_cold(results):
    from results import bars

    required = [bar.least for bar in bars(replace(results, photos=20_000))]
    assert 0.8 in required
    assert 0.5 not in required


def test_a_peer_that_is_not_installed_has_a_row_that_says_so(results):
    from results import markdown

    assert "| Daft, ONNX | not installed |" in markdown(results)


def test_results_are_read_as_they_were_written(results, tmp_path):
    from results import read, write

    write(results, tmp_path / "results.json")
    assert results == read(tmp_path / "results.json")


def test_the_chart_has_a_bar_for_each_way_that_was_measured(results):
    from chart import svg

    texts = re.findall(r"<text[^>]*>([^<]*)</text>", svg(results))
    assert {"score", "score, cold", "Ray Data, ONNX", "mlflow.pyfunc.spark_udf, torch"} < {*texts}
    assert "Daft, ONNX" not in texts
