"""What both frameworks' tests of training share; each runs in a process of its own."""

import json
from pathlib import Path

import mlflow
import numpy as np
import pytest

from mlproject import drawn_images, examples, images, learning, onboard, sources, training


def fill(spark, lake: str, folder: Path) -> int:
    """Ingests the files in `folder` (sub-folder = label); the version of `images`."""
    return images.ingest(spark, lake, sources.listing(str(folder))).table_version


def trained(spark, lake: str, folder: Path, version: int, framework: str, start: str, **more):
    """(the run as it ended, what `train` gave)."""
    table = f"{lake}/images"
    rows = spark.read.format("delta").option("versionAsOf", version).load(table)
    settings = learning.Settings(**{**fields(training.defaults(start)), **more})
    with mlflow.start_run() as run:
        mlflow.log_params({"framework": framework, "weights": start})  # as `mlflow run` does
        result = training.train(
            rows, framework, start, settings, folder=folder, path=table, version=version
        )
    return mlflow.get_run(run.info.run_id), result


def fields(settings: learning.Settings) -> dict:
    return {name: getattr(settings, name) for name in settings.__slots__}


def check_log(run, result, table: str, version: int, epochs: int) -> None:
    """The run holds what a person and the later verbs look for."""
    client = mlflow.MlflowClient()
    params, metrics = run.data.params, run.data.metrics
    assert str(version) == params["images_version"]
    assert {"framework", "weights", "train_epochs", "train_batch_size", "train_seed"} <= set(params)
    assert result.held_out_accuracy == metrics["held_out_accuracy"]
    assert result.held_out == metrics["held_out_images"]
    for name in ("train_loss", "train_accuracy", "held_out_loss", "held_out_accuracy"):
        history = client.get_metric_history(run.info.run_id, name)
        assert set(range(1, epochs + 1)) == {point.step for point in history}, name
    artifacts = {file.path for file in client.list_artifacts(run.info.run_id)}
    assert {"confusion_matrix.png", "worst_errors.png", "accuracy_by_label.json"} <= artifacts
    (lineage,) = run.inputs.dataset_inputs
    source = json.loads(lineage.dataset.source)
    assert (table, version) == (source["path"], source["delta_table_version"])
    assert f"images@v{version}" == lineage.dataset.name
    assert ["training"] == [tag.value for tag in lineage.tags]
    loaded = mlflow.data.get_source(lineage).load()
    assert result.images <= loaded.count()


def check_serving(spark, network, result, table: str) -> None:
    """The saved weights, fed as a version feeds them, reach the accuracy that was logged.

    Args:
        network: Encoded images -> probabilities, by the saved file in a network of its own.
    """
    rows = spark.read.format("delta").load(table).select("image_id", "label", "content").collect()
    by_id = {row.image_id: row for row in rows if examples_decode(row.content, result)}
    held_out = examples.held_out({image_id: row.label for image_id, row in by_id.items()})
    assert result.held_out == len(held_out)
    chosen = [by_id[image_id] for image_id in sorted(held_out)]
    said = network([row.content for row in chosen]).argmax(axis=1)
    right = [result.labels[place] == row.label for place, row in zip(said, chosen, strict=True)]
    assert result.held_out_accuracy == pytest.approx(np.mean(right))


def examples_decode(content: bytes, result) -> bool:
    return onboard.decode(content, result.config)[0] is not None


def inputs(contents: list[bytes], config: dict) -> np.ndarray:
    """What a version's network sees of these images: (N, H, W, 3) float32."""
    squares, _ = onboard.decode_all(contents, config)
    return (squares / np.float32(255) - np.float32(config["mean"])) / np.float32(config["std"])


def draw(folder: Path, images: int = 240) -> Path:
    drawn_images.draw(folder, images=images)
    return folder
