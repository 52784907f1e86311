"""Points an alias, or a stage, at a model version.

mlflow run . -e promote --env-manager local -P model=models:/photos/3
"""

import argparse

import mlflow

from mlproject import registry, tracking
from mlproject.errors import UserError
from pipelines import command
from pipelines import parser as new_parser


def parser() -> argparse.ArgumentParser:
    """The arguments of `promote`."""
    arguments = new_parser("promote", __doc__)
    arguments.add_argument("--model", required=True, help="model URI of the version")
    arguments.add_argument("--alias", default="champion", help="the alias that moves")
    arguments.add_argument("--stage", default="", help="the stage that moves instead of an alias")
    return arguments


def main(arguments: argparse.Namespace) -> None:
    """Moves one pointer."""
    client = tracking.connect()
    with tracking.run("promote", vars(arguments)):
        version = registry.resolve(client, arguments.model)
        word = f"/{arguments.stage}" if arguments.stage else f"@{arguments.alias}"
        try:
            before = registry.resolve(client, f"models:/{version.name}{word}").uri
        except UserError:
            before = "nothing"
        pointer = registry.move(client, version, alias=arguments.alias, stage=arguments.stage)
        mlflow.set_tags({"mlproject.pointer": pointer, "mlproject.version": version.uri})
    print(f"{pointer}: {before} -> {version.uri}")


if __name__ == "__main__":
    command(parser(), main)
