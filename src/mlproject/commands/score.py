"""Scores every image that a model version has not predicted yet.

mlflow run . -e score --env-manager local -P model=models:/photos@champion
"""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import mlproject
from mlproject.commands import console, log_lines

RENAMED = {"wave_images": "batch_images"}


def prepare(words: Sequence[str]) -> None:
    """Begins to start Spark, which each scoring uses; `words` are those of the command line."""
    from mlproject.integrations import spark_start
    from mlproject.storage.object_storage import store_of

    stores = (store_of(word.removeprefix("--lake=")) for word in words)
    spark_start.begin("mlproject score", store=next(filter(None, stores), ""), archive=True)


def run(*, log: log_lines.Format = "text", **options: Any) -> None:
    """Scores and prints how many images and how fast.

    Args:
        log: Lines for a person, or one JSON object a line: text or json.
    """
    with (
        console.logged(log, "score"),
        console.stopped_by_signals() as stopped,
        console.progress(f"score {options['model']}") as [on_progress],
    ):
        scored = mlproject.score(
            **options,
            stop=stopped.is_set,
            on_progress=on_progress,
            on_message=console.print_message,
        )
        version, result = scored.version.uri, scored.result
        log_lines.write(f"{version}: {result.summary()}", version=version, **asdict(result))
