"""Trains a classifier on the labelled images of a lake and registers it as a version.

mlflow run . -e train --env-manager local -P framework=torch -P weights=imagenet
"""

from typing import TYPE_CHECKING, Any

import mlproject
from mlproject.commands import console

if TYPE_CHECKING:
    from mlproject.training.trained_versions import TrainedVersion


def run(**options: Any) -> "TrainedVersion":
    """Trains and prints the version with its accuracy."""
    with console.progress("decode images", "train epochs") as [on_image, on_epoch]:
        made = mlproject.train(**options, on_image=on_image, on_epoch=on_epoch)
    print(
        f"Trained {made.version.uri} ({options['framework']}, {len(made.labels)} labels) on "
        f"{made.training_images} images: accuracy {made.held_out_accuracy:.1%} "
        f"on {made.held_out_images} held-out images"
    )
    for note in made.notes:
        print(note)
    console.print_engine(options["framework"], made.engine, made.engine_reason)
    return made
