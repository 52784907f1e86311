"""The tests that both frameworks' training must pass; each runs in a process of its own."""

import json
from dataclasses import replace
from pathlib import Path

import mlflow
import numpy as np
import pytest

from mlproject import inference
from mlproject.images import splits
from mlproject.ingestion import new_images, source_listing
from mlproject.integrations import framework_process
from mlproject.lake import snapshots
from mlproject.training import classifier, drawn_images, learning


def fill(spark, lake: str, folder: Path) -> int:
    """Ingests the files in `folder` (sub-folder = label); the version of `images`."""
    return new_images.ingest_pending(spark, lake, source_listing.listing(str(folder))).table_version


def trained(spark, lake: str, folder: Path, version: int, framework: str, start: str, **more):
    """(the run as it ended, what `train` gave)."""
    table = replace(snapshots.required(lake, "images"), version=version)
    settings = learning.Settings(**{**fields(classifier.defaults(start)), **more})
    with mlflow.start_run() as run, framework_process.process(framework) as call:
        mlflow.log_params({"framework": framework, "weights": start})  # as `mlflow run` does
        result = classifier.train(
            spark,
            table,
            framework,
            start,
            settings,
            call=call,
            folder=folder,
        )
    return mlflow.get_run(run.info.run_id), result


def fields(settings: learning.Settings) -> dict:
    return {name: getattr(settings, name) for name in settings.__slots__}


def check_log(run, result, table: str, version: int, epochs: int) -> None:
    """The run holds what users and later commands search for."""
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
    assert result.training + result.held_out <= loaded.count()


def check_serving(spark, network, result, table: str) -> None:
    """The saved weights, fed as a version feeds them, reach the accuracy that was logged.

    Args:
        network: (result, encoded images) -> probabilities, by the saved file.
    """
    rows = spark.read.format("delta").load(table).select("image_id", "label", "content").collect()
    by_id = {row.image_id: row for row in rows if is_decoded(row.content, result)}
    held_out = splits.held_out({image_id: row.label for image_id, row in by_id.items()})
    assert result.held_out == len(held_out)
    chosen = [by_id[image_id] for image_id in sorted(held_out)]
    predicted = network(result, [row.content for row in chosen]).argmax(axis=1)
    correct = [
        result.labels[place] == row.label for place, row in zip(predicted, chosen, strict=True)
    ]
    assert result.held_out_accuracy == pytest.approx(np.mean(correct))


def is_decoded(content: bytes, result) -> bool:
    return inference.decode(content, result.config)[0] is not None


def inputs(contents: list[bytes], config: dict) -> np.ndarray:
    """What a version's network sees of these images: (N, H, W, 3) float32."""
    squares, _ = inference.decode_all(contents, config)
    return (squares / np.float32(255) - np.float32(config["mean"])) / np.float32(config["std"])


def draw(folder: Path, images: int = 240) -> Path:
    drawn_images.draw(folder, images=images)
    return folder


class TrainingTests:
    """The tests of one framework's training; a module of its own inherits them."""

    framework: str
    real_weights: str
    flowers_accuracy: float

    def answers(self, result, contents):
        """Probabilities of encoded images, by the saved weights in a network of its own."""
        raise NotImplementedError

    def arrays(self, path):
        """The arrays of a weights file by name."""
        raise NotImplementedError

    def is_late(self, name):
        """Whether an array belongs to the last two blocks, or to what follows them."""
        raise NotImplementedError

    def is_statistic(self, name):
        """Whether an array is a mean or variance that batch norm has noted down."""
        raise NotImplementedError

    @pytest.fixture(scope="class")
    def drawn(self, spark, store, tmp_path_factory):
        """A network from scratch on the drawn set: (lake, version, run, result)."""
        folder = tmp_path_factory.mktemp("drawn")
        lake = str(folder / "lake")
        version = fill(spark, lake, draw(folder / "images"))
        run, result = trained(spark, lake, folder / "scratch", version, self.framework, "none")
        return lake, version, run, result

    def test_from_scratch_nine_of_ten_predictions_for_drawn_images_are_correct(self, drawn):
        _, _, run, result = drawn
        assert result.held_out_accuracy >= 0.9
        assert ("desert", "forest", "ocean", "sunset") == result.labels
        assert (
            1 == run.data.metrics["left_out_images"]
        )  # the truncated file: only decoding finds it out

    def test_the_run_has_parameters_curves_figures_and_lineage(self, drawn):
        lake, version, run, result = drawn
        check_log(run, result, f"{lake}/images", version, epochs=classifier.SCRATCH.epochs)

    def test_the_saved_weights_have_the_same_accuracy_in_scoring(self, spark, drawn):
        lake, _, _, result = drawn
        check_serving(spark, self.answers, result, f"{lake}/images")

    def test_fine_tuning_changes_the_last_blocks_only(self, spark, drawn, tmp_path):
        lake, version, _, result = drawn
        run, tuned = trained(
            spark,
            lake,
            tmp_path,
            version,
            self.framework,
            str(result.weights),
            epochs=2,
            image_size=64,
            fine_tune_blocks=2,
            fine_tune_epochs=1,
        )
        check_log(run, tuned, f"{lake}/images", version, epochs=3)
        check_serving(spark, self.answers, tuned, f"{lake}/images")
        assert tuned.held_out_accuracy >= 0.9
        before, after = self.arrays(result.weights), self.arrays(tuned.weights)
        changed = {name for name in before if not np.array_equal(before[name], after[name])}
        assert changed
        assert all(self.is_late(name) for name in changed), changed
        assert not any(self.is_statistic(name) for name in changed)

    def test_training_the_head_alone_is_accurate_on_real_flowers(
        self, spark, store, shared, tmp_path
    ):
        lake = str(tmp_path / "lake")
        version = fill(spark, lake, shared / "flowers5")
        weights = shared / "weights" / self.framework / self.real_weights
        run, result = trained(
            spark, lake, tmp_path / "scratch", version, self.framework, str(weights)
        )
        assert result.held_out_accuracy >= self.flowers_accuracy
        check_log(run, result, f"{lake}/images", version, epochs=30)
