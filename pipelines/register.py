"""Registers ready MobileNetV2 weights with their labels as a version, without training.

mlflow run . -e register --env-manager local -P framework=torch -P weights=imagenet
"""

import argparse
import tempfile
from pathlib import Path

import mlflow

from mlproject.errors import UserError
from mlproject.integrations import mlflow_tracking
from mlproject.integrations.framework_process import FRAMEWORKS, process
from mlproject.versions import imagenet, registration, weights
from pipelines import command
from pipelines import parser as new_parser


def parser() -> argparse.ArgumentParser:
    """The arguments of `register`."""
    arguments = new_parser("register", __doc__)
    arguments.add_argument("--framework", required=True, choices=FRAMEWORKS)
    arguments.add_argument("--weights", default="imagenet", help="imagenet, or a weights file")
    arguments.add_argument(
        "--labels", default="", help="text file, one label a line; empty = ImageNet's 1000"
    )
    arguments.add_argument("--name", default="photos", help="name of the registered model")
    arguments.add_argument(
        "--image_size", type=int, default=224, help="pixels of the square that the network sees"
    )
    return arguments


def main(arguments: argparse.Namespace) -> None:
    """Registers one version."""
    mlflow_tracking.connect()
    framework, name = arguments.framework, arguments.name
    with mlflow_tracking.run("register", vars(arguments)), tempfile.TemporaryDirectory() as folder:
        registration.check_name(name)
        labels = _labels(arguments.labels)
        with process(framework) as call:
            file = call(weights.canonical, framework, arguments.weights, Path(folder))
            config = registration.config(
                framework, image_size=arguments.image_size, width=file.width
            )
            tags = {"mlproject.verb": "register"}
            made = call(registration.register, file.path, labels, config, name=name, tags=tags)
        mlflow.set_tag("mlproject.version", made.uri)
    print(f"Registered {made.uri} ({framework}, {len(labels)} labels)")


def _labels(path: str) -> list[str]:
    if not path:
        return imagenet.labels()
    try:
        return Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"Labels {path!r} cannot be read ({error})") from error


if __name__ == "__main__":
    command(parser(), main)
