"""Scores every image that a model version has not answered yet.

mlflow run . -e score --env-manager local -P model=models:/photos@champion
"""

import argparse

from mlproject.errors import UserError
from mlproject.scoring import scorer
from mlproject.scoring.scoring_runs import score
from pipelines import command, progress, say, stopped_by_signals
from pipelines import parser as new_parser


def parser() -> argparse.ArgumentParser:
    """The arguments of `score`."""
    arguments = new_parser("score", __doc__)
    arguments.add_argument("--model", required=True, help="model URI: alias, stage or version")
    arguments.add_argument("--lake", default="lake", help="folder or URI of the tables")
    arguments.add_argument(
        "--wave_images", type=int, default=0, help="images a commit; 0 = 1000 for each task slot"
    )
    add_task_timeout(arguments)
    return arguments


def add_task_timeout(arguments: argparse.ArgumentParser) -> None:
    """The option that says when a version hangs."""
    arguments.add_argument(
        "--task_timeout",
        type=float,
        default=scorer.Settings().task_timeout,
        help="seconds without a task's end after which a version hangs",
    )


def require_task_timeout(arguments: argparse.Namespace) -> None:
    """Raises UserError unless it is a time."""
    if not arguments.task_timeout > 0:
        raise UserError(f"task_timeout={arguments.task_timeout} is not above 0")


def main(arguments: argparse.Namespace) -> None:
    """Scores once."""
    with stopped_by_signals() as stopped, progress(f"score {arguments.model}") as [on_progress]:
        scored = score(
            arguments.model,
            lake=arguments.lake,
            batch_images=arguments.wave_images,
            task_timeout=arguments.task_timeout,
            stop=stopped.is_set,
            on_progress=on_progress,
            on_message=say,
        )
    print(f"{scored.version.uri}: {scored.result.summary()}")


if __name__ == "__main__":
    command(parser(), main)
