"""Answers and the cache of networks: no JVM, no framework."""

import io
import math
import threading

import numpy as np
import pytest
from PIL import Image

from mlproject import inference
from mlproject.inference import process

CONFIG = {**inference.DEFAULTS, "resize": 256, "crop": 224}


def encoded(image):
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def test_of_equal_probabilities_the_first_label_wins():
    columns = inference.prediction_columns(np.array([[0.2, 0.4, 0.4]]), [""], ["a", "b", "c"], 2)
    assert columns == {
        "label": ["b"],
        "score": [0.4],
        "top_labels": [["b", "c"]],
        "top_scores": [[0.4, 0.4]],
        "error": [""],
    }


def test_there_are_never_more_top_labels_than_labels():
    columns = inference.prediction_columns(np.array([[0.25, 0.75]]), [""], ["a", "b"], 5)
    assert columns["top_labels"] == [["b", "a"]]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_probabilities_that_are_not_finite_are_an_error_of_that_row_alone(value):
    rows = np.array([[value, 0.5], [0.9, 0.1]])
    columns = inference.prediction_columns(rows, ["", "undecodable", ""], ["a", "b"], 5)
    assert columns["error"] == ["not_finite", "undecodable", ""]
    assert columns["label"] == ["", "", "a"]
    assert columns["top_scores"] == [[], [], [0.9, 0.1]]
    assert [math.isnan(score) for score in columns["score"]] == [True, True, False]


def test_predictions_keep_the_order_in_any_batch_size():
    def forward(images):
        assert len(images) > 0
        red = images[:, 0, 0, 0] / 255
        return np.stack([red, 1 - red], axis=1)

    colours = ["red", "black", None, "red", None, None, "black"]
    contents = [c and encoded(Image.new("RGB", (8, 8), c)) for c in colours]
    expected = ["r", "b", "", "r", "", "", "b"]
    for size in (1, 2, 3, 7, 100):
        config = {**CONFIG, "batch_size": size, "top_k": 5}
        assert inference.predictions(contents, forward, ["r", "b"], config)["label"] == expected
    empty = inference.predictions([], forward, ["r", "b"], {**CONFIG, "batch_size": 2, "top_k": 5})
    assert empty == {name: [] for name in inference.COLUMNS}


def test_a_network_is_loaded_once_by_many_threads_and_the_oldest_is_removed():
    key = object()
    networks = []
    threads = [
        threading.Thread(target=lambda: networks.append(inference.cached(key, object)))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(set(map(id, networks))), inference.loads().count(key)) == (1, 1)
    for other in range(process._MAX_NETWORKS):
        inference.cached((key, other), object)
    inference.cached(key, object)
    assert inference.loads().count(key) == 2


def test_a_failed_load_leaves_nothing_in_the_cache():
    key = object()

    def fails():
        raise ValueError("no weights")

    with pytest.raises(ValueError, match="no weights"):
        inference.cached(key, fails)
    assert inference.cached(key, lambda: "network") == "network"
