"""Registers weights that a test saved, and compares the version with the network that it saved."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import numpy as np

import mlproject
from mlproject import inference
from tests.conftest import photo
from tests.support import predicting

LABELS = ["crane", "tench", "crane", "daisy"]
UNIQUE = ("crane (0)", "tench", "crane (2)", "daisy")


def options(weights: Path, folder: Path) -> dict[str, Any]:
    """Options of `register`, for weights with four outputs, of which two have the same name."""
    labels = folder / "labels.csv"
    labels.write_text("\n".join(f"{name},{n}" for n, name in enumerate(LABELS)), encoding="utf-8")
    files = {"weights": str(weights), "labels": str(labels)}
    return {**files, "name": "ready", "image_size": 32, "engine": "native"}


def register(framework: str, weights: Path, folder: Path) -> Any:
    """What `register` gives for these options."""
    made = mlproject.register(framework, **options(weights, folder))
    assert UNIQUE == made.labels
    assert "'crane (0)', 'crane (2)'" in made.notes[-1]
    return made


def assert_predicts(made: Any, network: Callable[[Any], Any]) -> None:
    """The version predicts what the network does: normalised images -> probabilities."""
    model = mlflow.pyfunc.load_model(made.version.uri)
    config = model.unwrap_python_model().config
    contents = [photo((50 * n, 255 - 50 * n, 9), n) for n in range(5)]
    found = model.predict(predicting.frame(contents))
    squares, _ = inference.decode_all(contents, config)
    expected = network((squares / np.float32(255) - config["mean"]) / np.float32(config["std"]))
    assert 1 < len({tuple(row.round(3)) for row in expected})
    assert [UNIQUE[row.argmax()] for row in expected] == found["label"].tolist()
    np.testing.assert_allclose(found["score"], expected.max(axis=1), atol=1e-3)
