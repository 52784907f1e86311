"""Writes what the versions predict for the images of a lake, as one HTML file.

mlflow run . -e report --env-manager local -P lake=lake -P out=report.html
"""

from typing import Any

import mlproject


def run(**options: Any) -> None:
    """Writes the report and prints what it holds."""
    made = mlproject.report(**options)
    print(
        f"{made.file}: {made.images} images, {made.versions} versions, "
        f"{made.pointers} aliases and stages, {made.different} images with different predictions"
    )
