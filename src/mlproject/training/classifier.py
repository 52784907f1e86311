"""Trains a classifier on the labelled images of a lake and logs the results to MLflow."""

import importlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
from mlflow.data.delta_dataset_source import DeltaDatasetSource
from mlflow.data.meta_dataset import MetaDataset
from mlflow.types.schema import ColSpec, Schema
from pyspark.sql import SparkSession

from mlproject.errors import UserError
from mlproject.ingestion import labels
from mlproject.integrations.framework_process import Call, OnProgress, report_progress
from mlproject.lake import snapshots
from mlproject.lake.snapshots import Snapshot
from mlproject.training import figures, labelled_images, learning
from mlproject.training.learning import BLOCKS, Examples, Floats, Images, Scores, Settings
from mlproject.versions import registration
from mlproject.versions.engines import ONNXRUNTIME, PARITY_IMAGES
from mlproject.weights import weights_files
from mlproject.weights.weights_files import WeightsFile

NONE = "none"  # the value that stands for random weights
MISTAKES = 20  # logged images: the incorrect predictions with the highest scores

# Training from scratch is a demonstration on few small images; photos need more epochs.
SCRATCH = Settings(epochs=4, batch_size=16, learning_rate=2e-3, image_size=64)
HEAD = Settings(epochs=30, batch_size=32, learning_rate=1e-3, image_size=224)


@dataclass(frozen=True, slots=True)
class Trained:
    """A trained network, ready to be registered."""

    weights: Path
    """Its weights file, in the folder that `train` got."""
    labels: tuple[str, ...]
    """One for each output, in order."""
    config: dict[str, Any]
    """The numbers of preprocessing and prediction, as `registration.config` gives them."""
    held_out_accuracy: float
    """Share of the held-out images with a correct prediction of the saved network, 0..1."""
    training: int
    """Images that it was trained on."""
    held_out: int
    """Images that were only for evaluation."""
    parity_images: Images
    """Some of these, decoded, for `registration.register`."""
    notes: tuple[str, ...]
    """Which of several networks in a weights file it started from, as a sentence."""


def defaults(start: str) -> Settings:
    """Settings that suit the start of training: `none`, `imagenet`, or a weights file."""
    return SCRATCH if start == NONE else HEAD


def train(
    spark: SparkSession,
    images: Snapshot,
    framework: str,
    start: str,
    settings: Settings,
    *,
    engine: str = ONNXRUNTIME,
    call: Call,
    folder: Path,
    on_images: OnProgress = lambda done, total: None,
) -> Trained:
    """A network trained on the labelled images; parameters, curves and figures are logged.

    Args:
        spark: A session with Delta.
        images: The snapshot of `images` that the lineage names.
        framework: `keras` or `torch`.
        start: `imagenet`, `none` (the whole network from scratch), or a weights file.
        settings: How to train.
        engine: The engine of the version, see `registration.config`.
        call: Calls into the process of the framework, which reports epochs.
        folder: Temporary folder for pixels and weights; the caller removes it.
        on_images: Called with the number of decoded images, and of all.

    Raises:
        UserError: Settings, weights or images cannot be used; nothing was trained.
    """
    check(framework, start, settings)
    rows = images.read(spark)
    given = snapshots.rows(spark, images.lake, "labels")
    newest = labels.with_newest(rows.drop("content", "thumbnail"), given)
    label_of, ambiguous = labelled_images.labelled(newest)
    file = None
    if start != NONE:
        file = call(weights_files.canonical, framework, start, folder / "start")
    width = file.width if file else 1.0
    config = registration.config(
        framework, image_size=settings.image_size, width=width, engine=engine
    )
    data = labelled_images.load(rows, label_of, config, folder, on_images)
    params = {"framework": framework, "weights": start, "width": config["width"]}
    params |= {"classes": len(data.labels), "images_version": images.version}
    # The used values; `mlflow run` logs the given ones, such as epochs=0, under their own names,
    # and MLflow logs the config of the version, which has another batch_size.
    params |= {f"train_{name}": value for name, value in asdict(settings).items()}
    logged = mlflow.get_run(mlflow.active_run().info.run_id).data.params
    mlflow.log_params({name: value for name, value in params.items() if name not in logged})
    _log_lineage(images)
    out = folder / f"mobilenet_v2{weights_files.CANONICAL_SUFFIX[framework]}"
    probabilities = call(_learn, framework, data, file, settings, config, out)
    found = learning.scores(probabilities, data.held_out_targets)
    training, held_out = len(data.training), len(data.held_out)
    # Labelled images that are not used: they cannot be decoded, or have two labels.
    left_out = len(data.targets) - training - held_out + ambiguous
    _log_result(data, probabilities, found, last=settings.last_epoch)
    counts = {"training_images": training, "held_out_images": held_out}
    mlflow.log_metrics({**counts, "left_out_images": left_out})
    notes = (file.note,) if file and file.note else ()
    some = np.asarray(data.pixels[data.held_out[:PARITY_IMAGES]])
    return Trained(out, data.labels, config, found.accuracy, training, held_out, some, notes)


def check(framework: str, start: str, settings: Settings) -> None:
    """Raises UserError when this start and these settings cannot be used."""
    registration.config(framework, image_size=settings.image_size)
    if start != NONE:
        weights_files.check(framework, start)
    for name in ("epochs", "batch_size", "learning_rate", "fine_tune_epochs"):
        if not getattr(settings, name) > 0:
            raise UserError(f"{name}={getattr(settings, name)!r} is not above 0.")
    if not 0 <= settings.fine_tune_blocks <= BLOCKS:
        raise UserError(f"fine_tune_blocks={settings.fine_tune_blocks!r} is not in 0..{BLOCKS}.")
    if start == NONE and settings.fine_tune_blocks:
        raise UserError(f"weights={NONE!r} trains the whole network: leave out fine_tune_blocks.")


def _learn(
    framework: str,
    data: Examples,
    file: WeightsFile | None,
    settings: Settings,
    config: dict[str, Any],
    out: Path,
) -> Floats:
    """Trains in the process of the framework; logs and reports each epoch.

    Returns:
        Probabilities (held-out images, K) of the trained network, which is saved to `out`.
    """

    def on_epoch(epoch: int, training: Scores, held_out: Scores) -> None:
        curves = {
            "train_loss": training.loss,
            "train_accuracy": training.accuracy,
            "held_out_loss": held_out.loss,
            "held_out_accuracy": held_out.accuracy,
        }
        mlflow.log_metrics(curves, step=epoch)
        report_progress(epoch, settings.last_epoch)

    module: Any = importlib.import_module(f"mlproject.training.{framework}_training")
    network: learning.Network = module.Network(len(data.labels), file, config, settings.seed)
    learning.train(network, data, settings, on_epoch, scratch=file is None)
    network.save(out)
    return learning.forward(network.probabilities, data, data.held_out)


class _PinnedDelta(DeltaDatasetSource):  # type: ignore[misc] # mlflow is not followed
    """A Delta table at a version: mlflow 3.17 leaves version 0 out of its JSON."""

    def to_dict(self) -> dict[Any, Any]:
        return {**super().to_dict(), "delta_table_version": self.delta_table_version}


def _log_lineage(images: Snapshot) -> None:
    """Logs the table and its version as the run's dataset.

    Only the source of `mlflow.data.load_delta` is used: its dataset counts rows by reading the
    whole table, with all image bytes, in Python. Source: mlflow 3.17, SparkDataset.profile.
    `mlflow.data.get_source(...).load()` gives the same rows.
    """
    schema = Schema(
        [ColSpec("string", "image_id"), ColSpec("binary", "content"), ColSpec("string", "label")]
    )
    source = _PinnedDelta(path=images.path, delta_table_version=images.version)
    dataset = MetaDataset(source, name=f"images@v{images.version}", schema=schema)
    mlflow.log_input(dataset, context="training")


def _log_result(data: Examples, probabilities: Floats, found: Scores, *, last: int) -> None:
    """Logs the metrics and figures of the finished network on the held-out images."""
    truth, predicted = data.held_out_targets, probabilities.argmax(axis=1)
    mlflow.log_metrics(
        {"held_out_loss": found.loss, "held_out_accuracy": found.accuracy}, step=last
    )
    counts = figures.confusion(truth, predicted, len(data.labels))
    images, correct = counts.sum(axis=1), np.diag(counts)
    table = {"label": data.labels, "images": images, "right": correct, "accuracy": correct / images}
    mlflow.log_table(pd.DataFrame(table), "accuracy_by_label.json")
    mlflow.log_figure(figures.confusion_figure(counts, data.labels), "confusion_matrix.png")
    pictures, captions = [], []
    mistakes = figures.worst_errors(probabilities, truth, MISTAKES)
    for rank, mistake in enumerate(mistakes, start=1):
        true, wrong = data.labels[truth[mistake]], data.labels[predicted[mistake]]
        score = float(probabilities[mistake, predicted[mistake]])
        picture = np.asarray(data.pixels[data.held_out[mistake]])
        name = figures.file_name(rank, true, wrong, score)
        mlflow.log_image(picture, artifact_file=f"worst_errors/{name}")
        pictures.append(picture)
        captions.append(figures.caption(true, wrong, score))
    mlflow.log_figure(figures.sheet(pictures, captions), "worst_errors.png")
