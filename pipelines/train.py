"""Trains a classifier on the labelled images of a lake and registers it as a version.

mlflow run . -e train --env-manager local -P framework=torch -P weights=imagenet
"""

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path

import mlflow

from mlproject.integrations import mlflow_tracking
from mlproject.integrations.framework_process import FRAMEWORKS, process
from mlproject.integrations.spark_session import session
from mlproject.lake import location, spark_tables
from mlproject.training import classifier
from mlproject.versions import registration
from mlproject.versions.registry import Version
from pipelines import command, progress
from pipelines import parser as new_parser


def parser() -> argparse.ArgumentParser:
    """The arguments of `train`."""
    arguments = new_parser("train", __doc__)
    arguments.add_argument("--framework", required=True, choices=FRAMEWORKS)
    arguments.add_argument(
        "--weights", default="imagenet", help="imagenet, none (from scratch), or a weights file"
    )
    arguments.add_argument("--lake", default="lake", help="folder or URI of the tables")
    arguments.add_argument("--name", default="photos", help="name of the registered model")
    arguments.add_argument("--epochs", type=int, default=0, help="0 = what fits the weights")
    arguments.add_argument("--image_size", type=int, default=0, help="pixels; 0 = the same")
    arguments.add_argument(
        "--fine_tune_blocks", type=int, default=0, help="last blocks trained after the head"
    )
    arguments.add_argument("--seed", type=int, default=0, help="of shuffling and first weights")
    return arguments


def main(arguments: argparse.Namespace) -> Version:
    """Trains and registers one version."""
    mlflow_tracking.connect()
    registration.check_name(arguments.name)
    settings = classifier.defaults(arguments.weights)
    settings = replace(
        settings,
        epochs=arguments.epochs or settings.epochs,
        image_size=arguments.image_size or settings.image_size,
        fine_tune_blocks=arguments.fine_tune_blocks,
        seed=arguments.seed,
    )
    classifier.check(arguments.framework, arguments.weights, settings)
    lake = location.locate(arguments.lake)
    with (
        mlflow_tracking.run("train", {"lake": arguments.lake, "name": arguments.name}),
        tempfile.TemporaryDirectory() as folder,
        progress("decode images", "train epochs") as [on_images, on_epoch],
        process(arguments.framework, on_epoch) as call,
    ):
        with session("mlproject train") as spark:
            images = spark_tables.snapshot(spark, lake, "images")
            trained = classifier.train(
                spark,
                images,
                arguments.framework,
                arguments.weights,
                settings,
                call=call,
                folder=Path(folder),
                on_images=on_images,
            )
        made = call(
            registration.register,
            trained.weights,
            trained.labels,
            trained.config,
            name=arguments.name,
            tags={
                "mlproject.verb": "train",
                "mlproject.images_version": str(images.version),
                "held_out_accuracy": f"{trained.held_out_accuracy:.4f}",
            },
        )
        mlflow.set_tag("mlproject.version", made.uri)
    print(
        f"Trained {made.uri} ({arguments.framework}, {len(trained.labels)} labels) on "
        f"{trained.images - trained.held_out} images: {trained.held_out_accuracy:.1%} right of "
        f"{trained.held_out} held out"
    )
    return made


if __name__ == "__main__":
    command(parser(), main)
