"""The whole life cycle: ingest, train two models, promote, re-score, go back, report.

    mlflow run . --env-manager local

Without a source it draws a small labelled image set of its own.
"""

import argparse
import os
import sys
import time
from pathlib import Path
from types import ModuleType

import mlflow
from mlflow import MlflowClient

from mlproject import drawn_images, rollouts, tables, tracking
from mlproject.errors import MlprojectError
from mlproject.session import session
from pipelines import command, ingest, promote, report, rescore
from pipelines import parser as new_parser

PROJECT = Path(__file__).parents[1]
DRAWN = "drawn_images"  # beside the lake; made again only when it is not whole
ALIAS = "champion"


def parser() -> argparse.ArgumentParser:
    """The arguments of `main`."""
    arguments = new_parser("main", __doc__)
    arguments.add_argument("--lake", default="lake", help="folder or URI of the tables")
    arguments.add_argument("--source", default="", help="labelled photos; empty = drawn images")
    arguments.add_argument("--keras_weights", default="none", help="imagenet, none, or a file")
    arguments.add_argument("--torch_weights", default="none", help="imagenet, none, or a file")
    arguments.add_argument("--name", default="photos", help="name of the registered model")
    return arguments


def main(arguments: argparse.Namespace) -> None:
    """Runs all steps as children of one run.

    Each training is an `mlflow run` of its own: TensorFlow and torch share no process. The other
    steps import neither, and share this process and one Spark session: its start would else cost
    more than their work.
    """
    began = time.monotonic()
    client = tracking.connect()
    lake, name = tables.locate_to_write(arguments.lake), arguments.name
    pointer = f"models:/{name}@{ALIAS}"
    out = str(Path("report.html").resolve())
    versions = {}
    with tracking.run("main", vars(arguments)), session("mlproject main") as spark:
        source = arguments.source or _draw(lake)
        _step(ingest, source=source, lake=lake)
        for framework in ("keras", "torch"):
            weights = _absolute(getattr(arguments, f"{framework}_weights"))
            ran = _train(client, framework=framework, weights=weights, lake=lake, name=name)
            versions[framework] = ran.data.tags["mlproject.version"]
            accuracy = ran.data.metrics["held_out_accuracy"]
            mlflow.log_metric(f"held_out_accuracy_{framework}", accuracy)
        for framework in ("keras", "torch", "keras"):
            _step(promote, model=versions[framework], alias=ALIAS)
            _step(rescore, pointers=pointer, lake=lake)
        _step(report, lake=lake, out=out)
        mlflow.log_metric("seconds", time.monotonic() - began)
        now = rollouts.serving(tables.read(spark, lake, "rollouts"), pointer)
    print(
        f"""
Done in {time.monotonic() - began:.0f} s.
The report:         {out}
Readers now see:    {pointer} = {now.version.uri if now else "nothing"}

Try next:
  mlflow run . -e promote --env-manager local -P model={versions["torch"]}
  mlflow run . -e rescore --env-manager local -P lake={arguments.lake}
  mlflow ui --backend-store-uri {mlflow.get_tracking_uri()}"""
    )


def _draw(lake: str) -> str:
    beside = Path(lake).parent if tables.is_local(lake) else Path.cwd()
    folder = beside / DRAWN
    drawn_images.draw(folder)
    return str(folder)


def _absolute(weights: str) -> str:
    """A weights file as seen from the project's folder, where the training runs."""
    return str(Path(weights).resolve()) if Path(weights).is_file() else weights


def _announce(verb: str, parameters: dict[str, str]) -> None:
    words = " ".join(f"{key}={value}" for key, value in parameters.items())
    print(f"\n== {verb} {words}", flush=True)


def _step(verb: ModuleType, **parameters: str) -> None:
    """Runs a verb in this process; its run is a child of ours."""
    _announce(verb.__name__.removeprefix("pipelines."), parameters)
    words = [word for key, value in parameters.items() for word in (f"--{key}", value)]
    verb.main(verb.parser().parse_args(words))


def _train(client: MlflowClient, **parameters: str) -> mlflow.entities.Run:
    """Runs the entry point `train` as a child run, and gives that back ended."""
    _announce("train", parameters)
    # The child makes its own JVM: under spark-submit it would else join this one's.
    for name in ("PYSPARK_GATEWAY_PORT", "PYSPARK_GATEWAY_SECRET"):
        os.environ.pop(name, None)
    # The local environment is the `python` that is first on PATH: this one.
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    try:
        submitted = mlflow.projects.run(
            str(PROJECT), "train", parameters=parameters, env_manager="local"
        )
    except mlflow.exceptions.ExecutionException as error:
        raise MlprojectError("a training failed; its own words stand above") from error
    return client.get_run(submitted.run_id)


if __name__ == "__main__":
    command(parser(), main)
