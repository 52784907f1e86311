"""Scores every image that a model version has not answered yet.

mlflow run . -e score --env-manager local -P model=models:/photos@champion
"""

import argparse

import mlflow
from pyspark.sql import SparkSession

from mlproject import lakes, registry, rollouts, scoring, tracking
from mlproject.session import session
from pipelines import command, progress, say_wait
from pipelines import parser as new_parser


def parser() -> argparse.ArgumentParser:
    """The arguments of `score`."""
    arguments = new_parser("score", __doc__)
    arguments.add_argument("--model", required=True, help="model URI: alias, stage or version")
    arguments.add_argument("--lake", default="lake", help="folder or URI of the tables")
    arguments.add_argument(
        "--wave_images", type=int, default=0, help="images a commit; 0 = 1000 for each task slot"
    )
    return arguments


def main(arguments: argparse.Namespace) -> None:
    """Scores once."""
    client = tracking.connect()
    with tracking.run("score", vars(arguments)) as run:
        version = registry.resolve(client, arguments.model)
        lake = lakes.locate_to_write(arguments.lake)
        with (
            session("mlproject score") as spark,
            lakes.writing(lake, f"score {version.uri}", on_wait=say_wait),
        ):
            scored = score_version(
                spark, lake, version, run_id=run.info.run_id, wave_images=arguments.wave_images
            )
            covered = rollouts.coverage(spark, lake, version, scored.images_version)
        mlflow.log_metric("coverage", covered)
        mlflow.set_tags({"mlproject.version": version.uri, "mlproject.model_id": version.model_id})
        log_scored(scored)
    print(f"{version.uri}: {told(scored)}")


def score_version(
    spark: SparkSession, lake: str, version: registry.Version, *, run_id: str, wave_images: int = 0
) -> scoring.Scored:
    """Scores what is pending for a version, and tells of progress and of unmet requirements."""
    unmet = scoring.unmet_requirements(version)
    if unmet:
        print(f"{version.uri} was made with other packages: {', '.join(unmet)}", flush=True)
    with progress(f"score {version.uri}") as [on_wave]:
        return scoring.score(
            spark, lake, version, run_id=run_id, wave_images=wave_images, on_wave=on_wave
        )


def log_scored(scored: scoring.Scored) -> None:
    """Logs a scoring to the active run."""
    mlflow.log_metrics(
        {
            "images": scored.images,
            "images_per_second": scored.images / scored.seconds,
            "errors": scored.errors,
            "unreadable": scored.unreadable,
        }
    )
    mlflow.set_tag("mlproject.images_version", scored.images_version)


def told(scored: scoring.Scored) -> str:
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
