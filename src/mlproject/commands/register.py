"""Registers ready MobileNetV2 weights with their labels as a version, without training.

mlflow run . -e register --env-manager local -P framework=torch -P weights=imagenet
"""

from typing import Any

import mlproject
from mlproject.commands import console


def run(**options: Any) -> None:
    """Registers and prints the version."""
    made = mlproject.register(**options)
    print(f"Registered {made.version.uri} ({options['framework']}, {len(made.labels)} labels)")
    for note in made.notes:
        print(note)
    console.print_engine(options["framework"], made.engine, made.engine_reason)
