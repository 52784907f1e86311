"""Scores every image that a model version has not predicted yet.

mlflow run . -e score --env-manager local -P model=models:/photos@champion
"""

from collections.abc import Sequence
from typing import Any

import mlproject
from mlproject.commands import console

RENAMED = {"wave_images": "batch_images"}


def prepare(words: Sequence[str]) -> None:
    """Begins to start Spark, which each scoring uses; `words` are those of the command line."""
    from mlproject.integrations import spark_start
    from mlproject.storage.object_storage import is_s3

    s3 = any(is_s3(word.removeprefix("--lake=")) for word in words)
    spark_start.begin("mlproject score", s3=s3, archive=True)


def run(**options: Any) -> None:
    """Scores and prints how many images and how fast."""
    with (
        console.stopped_by_signals() as stopped,
        console.progress(f"score {options['model']}") as [on_progress],
    ):
        scored = mlproject.score(
            **options,
            stop=stopped.is_set,
            on_progress=on_progress,
            on_message=console.print_message,
        )
    print(f"{scored.version.uri}: {scored.result.summary()}")
