"""Scores every image that a model version has not answered yet.

mlflow run . -e score --env-manager local -P model=models:/photos@champion
"""

import argparse

import mlflow
from mlflow import MlflowClient

from mlproject.errors import UserError
from mlproject.integrations import mlflow_tracking
from mlproject.integrations.spark_session import master_name, session
from mlproject.lake import location
from mlproject.scoring import coverage, scorer, scoring_runs
from mlproject.versions import registry, version_files
from mlproject.versions.registry import Version
from mlproject.versions.version_files import Files
from pipelines import command, progress, say_wait, stopped_by_signals
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
    require_task_timeout(arguments)
    client = mlflow_tracking.connect()
    with mlflow_tracking.run("score", vars(arguments)) as run, stopped_by_signals() as stopped:
        version = registry.resolve(client, arguments.model)
        lake = location.locate_to_write(arguments.lake)
        files = files_of(client, version)
        scoring_runs.describe(client, run.info.run_id, version, files, master_name())
        settings = scorer.Settings(
            run_id=run.info.run_id,
            batch_images=arguments.wave_images,
            task_timeout=arguments.task_timeout,
        )
        with (
            session("mlproject score") as spark,
            location.writing(lake, f"score {version.uri}", on_wait=say_wait, stop=stopped.is_set),
            progress(f"score {version.uri}") as [on_wave],
        ):
            scored = scorer.score_pending(
                spark, lake, version, settings=settings, stop=stopped.is_set, on_progress=on_wave
            )
            scoring_runs.log(client, run.info.run_id, scored)
        covered, _ = coverage.count(lake, version, coverage.newest_images(lake))
        mlflow.log_metric("coverage", covered.share)
        if stopped.is_set():
            raise KeyboardInterrupt
    print(f"{version.uri}: {told(scored)}")


def files_of(client: MlflowClient, version: Version) -> Files:
    """What a version holds, the same as when it was promoted; tells of unmet requirements."""
    files = version_files.read(version)
    version_files.require_unchanged(client, version, files)
    if files.unmet:
        print(f"{version.uri} was made with other packages: {', '.join(files.unmet)}", flush=True)
    return files


def told(scored: scorer.ScoringResult) -> str:
    """A scoring in words."""
    left = f"; {scored.unreadable} left, as their files cannot be read" if scored.unreadable else ""
    if not scored.images:
        return f"nothing to score{left}; predictions version {scored.table_version}"
    return (
        f"{scored.images} images scored in {scored.seconds:.1f} s "
        f"({scored.images / scored.seconds:.1f} images/s), {scored.errors} with an error{left}; "
        f"predictions version {scored.table_version}"
    )


if __name__ == "__main__":
    command(parser(), main)
