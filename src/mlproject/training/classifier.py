"""Trains a classifier on the labelled images of a lake and logs how it went to the MLflow run."""

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
from mlproject.integrations.framework_process import Call, OnProgress, report_progress
from mlproject.lake.snapshots import Snapshot
from mlproject.training import figures, labelled_images
from mlproject.training.learning import Examples, Floats, Scores, Settings
from mlproject.training.learning import scores as scores_of
from mlproject.versions import registration, weights

NONE = "none"  # what a person writes to start from random weights
MISTAKES = 20  # images of the surest mistakes that are logged
BLOCKS = 17  # inverted residuals of MobileNetV2. Source: arXiv 1801.04381, table 2

# From scratch it is a demonstration on few, small, simple images; real photos want more epochs.
SCRATCH = Settings(epochs=4, batch_size=16, learning_rate=2e-3, image_size=64)
HEAD = Settings(epochs=30, batch_size=32, learning_rate=1e-3, image_size=224)


@dataclass(frozen=True, slots=True)
class Trained:
    """A trained network, ready to be registered."""

    weights: Path
    """Its weights file, in the folder that `train` was given."""
    labels: tuple[str, ...]
    """One for each output, in order."""
    config: dict[str, Any]
    """What the version preprocesses and answers with."""
    held_out_accuracy: float
    """Share of the held-out images that the saved network tells right, 0..1."""
    images: int
    """Images learnt from or measured on."""
    held_out: int
    """How many of them were only measured on."""
    left_out: int
    """Labelled images not used: they cannot be decoded, or stand under two labels."""


def defaults(start: str) -> Settings:
    """Settings that fit where training starts: `none`, `imagenet`, or a weights file."""
    return SCRATCH if start == NONE else HEAD


def train(
    spark: SparkSession,
    images: Snapshot,
    framework: str,
    start: str,
    settings: Settings | None = None,
    *,
    call: Call,
    folder: Path,
    on_images: OnProgress = lambda done, total: None,
) -> Trained:
    """A network trained on the labelled images; parameters, curves and figures are logged.

    Args:
        spark: A session with Delta.
        images: The `images` table, at the version that the lineage names.
        framework: `keras` or `torch`.
        start: `imagenet`, `none` (the whole network from scratch), or a weights file.
        settings: How to train; `defaults(start)` when None.
        call: Into the framework's process, see `frameworks.process`.
        folder: Scratch, for pixels and weights; the caller removes it.
        on_images: Told the images decoded and all there are. Epochs are told by `call`.

    Raises:
        UserError: Settings, weights or images do not do; nothing was trained.
    """
    settings = settings or defaults(start)
    check(framework, start, settings)
    rows = images.read(spark)
    chosen = labelled_images.labelled(rows)
    file = None
    if start != NONE:
        file = call(weights.canonical, framework, start, folder / "start")
    config = registration.config(
        framework, image_size=settings.image_size, width=file.width if file else 1.0
    )
    data = labelled_images.load(rows, chosen.labels, config, folder, on_images)
    facts = {"framework": framework, "weights": start, "width": config["width"]}
    facts |= {"classes": len(data.labels), "images_version": images.version}
    # What was used, beside what was asked for: `mlflow run` logs its own epochs=0 and the like,
    # and MLflow logs the version's config, with a batch_size of its own.
    facts |= {f"train_{name}": value for name, value in asdict(settings).items()}
    _log_params(facts)
    _log_lineage(images)
    out = folder / f"trained{weights.CANONICAL_SUFFIX[framework]}"
    probabilities = call(_learn, framework, data, file, settings, config, out)
    found = scores_of(probabilities, data.held_out_targets)
    used = len(data.training) + len(data.held_out)
    left_out = len(data.image_ids) - used + chosen.ambiguous
    _log_result(data, probabilities, found, last=_last_epoch(settings))
    counts = {"training_images": len(data.training), "held_out_images": len(data.held_out)}
    mlflow.log_metrics({**counts, "left_out_images": left_out})
    return Trained(out, data.labels, config, found.accuracy, used, len(data.held_out), left_out)


def check(framework: str, start: str, settings: Settings) -> None:
    """Raises UserError when nothing can be trained from there with these settings."""
    registration.config(framework, image_size=settings.image_size)
    if start != NONE:
        weights.check(framework, start)
    positive = ("epochs", "batch_size", "learning_rate", "fine_tune_epochs")
    for name in positive:
        if not getattr(settings, name) > 0:
            raise UserError(f"{name} must be above 0, not {getattr(settings, name)!r}.")
    if not 0 <= settings.fine_tune_blocks <= BLOCKS:
        raise UserError(
            f"fine_tune_blocks must be from 0 to {BLOCKS}, not {settings.fine_tune_blocks!r}."
        )
    if start == NONE and settings.fine_tune_blocks:
        raise UserError(
            f"With weights={NONE} the whole network is trained: leave fine_tune_blocks out."
        )


def _learn(
    framework: str,
    data: Examples,
    file: weights.WeightsFile | None,
    settings: Settings,
    config: dict[str, Any],
    out: Path,
) -> Floats:
    """Trains, in the framework's process; each epoch is logged and told of as it ends."""

    def on_epoch(epoch: int, training: Scores, held_out: Scores) -> None:
        _log_epoch(epoch, training, held_out)
        report_progress(epoch, _last_epoch(settings))

    network: Any = importlib.import_module(f"mlproject.training.{framework}_training")
    probabilities: Floats = network.train(
        data, file, settings, config=config, path=out, on_epoch=on_epoch
    )
    return probabilities


def _last_epoch(settings: Settings) -> int:
    return settings.epochs + (settings.fine_tune_epochs if settings.fine_tune_blocks else 0)


def _log_params(facts: dict[str, Any]) -> None:
    """Logs what is not there yet: `mlflow run` has logged some under the same names."""
    run = mlflow.active_run()
    if run is None:
        raise RuntimeError("train() logs to the active MLflow run, and there is none")
    there = mlflow.get_run(run.info.run_id).data.params
    mlflow.log_params({name: value for name, value in facts.items() if name not in there})


def _log_epoch(epoch: int, training: Scores, held_out: Scores) -> None:
    curves = {
        "train_loss": training.loss,
        "train_accuracy": training.accuracy,
        "held_out_loss": held_out.loss,
        "held_out_accuracy": held_out.accuracy,
    }
    mlflow.log_metrics(curves, step=epoch)


class _PinnedDelta(DeltaDatasetSource):  # type: ignore[misc] # mlflow is not followed
    """A Delta table at a version, 0 included: mlflow 3.17 leaves that one out of its JSON."""

    def to_dict(self) -> dict[Any, Any]:
        return {**super().to_dict(), "delta_table_version": self.delta_table_version}


def _log_lineage(images: Snapshot) -> None:
    """Logs the table and its version as the run's dataset.

    Of `mlflow.data.load_delta` only the source is used: its dataset counts the rows by carrying
    the whole table, all image bytes, through Python. Source: mlflow 3.17, SparkDataset.profile.
    `mlflow.data.get_source(...).load()` gives the same rows all the same.
    """
    schema = Schema(
        [ColSpec("string", "image_id"), ColSpec("binary", "content"), ColSpec("string", "label")]
    )
    source = _PinnedDelta(path=images.path, delta_table_version=images.version)
    dataset = MetaDataset(source, name=f"images@v{images.version}", schema=schema)
    mlflow.log_input(dataset, context="training")


def _log_result(data: Examples, probabilities: Floats, found: Scores, *, last: int) -> None:
    """Logs how the finished network does on the held-out images, in numbers and pictures."""
    truth, said = data.held_out_targets, probabilities.argmax(axis=1)
    mlflow.log_metrics(
        {"held_out_loss": found.loss, "held_out_accuracy": found.accuracy}, step=last
    )
    counts = figures.confusion(truth, said, len(data.labels))
    images, right = counts.sum(axis=1), np.diag(counts)
    table = {"label": data.labels, "images": images, "right": right, "accuracy": right / images}
    mlflow.log_table(pd.DataFrame(table), "accuracy_by_label.json")
    figure = figures.confusion_figure(counts, data.labels)
    mlflow.log_figure(figure, "confusion_matrix.png")
    pictures, captions = [], []
    mistakes = figures.surest_mistakes(probabilities, truth, MISTAKES)
    for place, mistake in enumerate(mistakes, start=1):
        true, wrong = data.labels[truth[mistake]], data.labels[said[mistake]]
        sureness = float(probabilities[mistake, said[mistake]])
        picture = np.asarray(data.pixels[data.held_out[mistake]])
        name = figures.file_name(place, true, wrong, sureness)
        mlflow.log_image(picture, artifact_file=f"worst_errors/{name}")
        pictures.append(picture)
        captions.append(figures.caption(true, wrong, sureness))
    mlflow.log_figure(figures.sheet(pictures, captions), "worst_errors.png")
