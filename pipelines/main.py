"""The whole life cycle: ingest, train two models, promote, re-score, go back, report.

    mlflow run . --env-manager local

Without a source it draws a small labelled image set of its own.
"""

import argparse
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import mlflow

from mlproject.commands import ingest, promote, report, train
from mlproject.integrations import mlflow_tracking
from mlproject.integrations.framework_process import FRAMEWORKS
from mlproject.integrations.spark_session import session
from mlproject.lake import location
from mlproject.rollout import ledger
from mlproject.training import classifier, drawn_images
from mlproject.versions import registration
from pipelines import command, rescore
from pipelines import parser as new_parser

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
    """Runs all steps as children of one run, in one Spark session.

    A session takes longer to start than the steps take to work, on a laptop.
    """
    began = time.monotonic()
    mlflow_tracking.connect()
    name, starts = arguments.name, {f: getattr(arguments, f"{f}_weights") for f in FRAMEWORKS}
    registration.check_name(name)
    for framework, start in starts.items():  # wrong words are told before anything costs
        classifier.check(framework, start, classifier.defaults(start))
    lake = location.locate_to_write(arguments.lake)
    pointer = f"models:/{name}@{ALIAS}"
    out = str(Path("report.html").resolve())
    made = {}
    with mlflow_tracking.run("main", vars(arguments)), session("mlproject main"):
        # The drawn images have been written to their end: no need to let them settle.
        source, settle = (arguments.source, 2) if arguments.source else (_draw(lake), 0)
        print(f"\n== ingest source={source} lake={lake} settle={settle}", flush=True)
        ingest.run(source=source, lake=lake, settle=settle)
        for framework, start in starts.items():
            options = {"framework": framework, "weights": start, "lake": lake, "name": name}
            print(f"\n== train {' '.join(f'{k}={v}' for k, v in options.items())}", flush=True)
            made[framework] = train.run(**options).version.uri
        for framework in ("keras", "torch", "keras"):
            # Both are shown, whichever is better: gates tell, and stop nothing.
            words: dict[str, Any] = {
                "model": made[framework],
                "alias": ALIAS,
                "lake": lake,
                "gate": "warn",
            }
            print(f"\n== promote {' '.join(f'{k}={v}' for k, v in words.items())}", flush=True)
            promote.run(**words)
            _step(rescore, pointers=pointer, lake=lake)
        print(f"\n== report lake={lake} out={out}", flush=True)
        report.run(lake=lake, out=out)
        mlflow.log_metric("seconds", time.monotonic() - began)
        now = ledger.read(lake).serving(pointer)
    print(
        f"""
Done in {time.monotonic() - began:.0f} s.
The report:         {out}
Readers now see:    {pointer} = {now.version.uri if now else "nothing"}

Try next:
  mlflow run . -e promote --env-manager local -P model={made["torch"]}
  mlflow run . -e rescore --env-manager local -P lake={arguments.lake}
  mlflow ui --backend-store-uri {mlflow.get_tracking_uri()}"""
    )


def _draw(lake: str) -> str:
    beside = Path(lake).parent if location.is_local(lake) else Path.cwd()
    folder = beside / DRAWN
    drawn_images.draw(folder)
    return str(folder)


def _step(verb: ModuleType, **parameters: str) -> Any:
    """Runs a verb in this process, and gives back what it returns; its run is a child of ours."""
    words = " ".join(f"{key}={value}" for key, value in parameters.items())
    print(f"\n== {verb.__name__.removeprefix('pipelines.')} {words}", flush=True)
    options = [word for key, value in parameters.items() for word in (f"--{key}", value)]
    return verb.main(verb.parser().parse_args(options))


if __name__ == "__main__":
    command(parser(), main)
