"""Makes readers follow: scores what the version behind each pointer has not said, then switches.

mlflow run . -e rescore --env-manager local -P pointers=models:/photos@champion
"""

import argparse
import sys

import mlflow
from mlflow.exceptions import MlflowException
from py4j.protocol import Py4JJavaError  # a worker that crashes is no PySparkException
from pyspark.errors import PySparkException

from mlproject import lakes, registry, rollouts, scoring, tables, tracking
from mlproject.errors import MlprojectError, UserError
from mlproject.session import session
from pipelines import command, say_wait
from pipelines import parser as new_parser
from pipelines.score import log_scored, score_version, told


def parser() -> argparse.ArgumentParser:
    """The arguments of `rescore`."""
    arguments = new_parser("rescore", __doc__)
    arguments.add_argument(
        "--pointers", default="", help="comma-separated; empty = all pointers in rollouts"
    )
    arguments.add_argument("--lake", default="lake", help="folder or URI of the tables")
    return arguments


def main(arguments: argparse.Namespace) -> None:
    """Follows each pointer; one that cannot be followed does not stop the others."""
    client = tracking.connect()
    failed = False
    done: list[rollouts.Followed] = []
    with tracking.run("rescore", vars(arguments)) as run:
        lake = lakes.locate_to_write(arguments.lake)
        wanted = [word.strip() for word in arguments.pointers.split(",") if word.strip()]
        if len(wanted) == 1:
            registry.resolve(client, wanted[0])  # a wrong word is told before Spark starts
        with (
            session("mlproject rescore") as spark,
            lakes.writing(lake, "rescore", on_wait=say_wait),
        ):
            known = wanted or rollouts.pointers(tables.read(spark, lake, "rollouts"))
            if not known:
                raise UserError(
                    "No pointer is followed in this lake yet. Name one: "
                    "mlflow run . -e rescore -P pointers=models:/photos@champion"
                )
            for pointer in known:
                try:
                    followed = rollouts.follow(
                        spark,
                        client,
                        lake,
                        pointer,
                        score=lambda version: score_version(
                            spark, lake, version, run_id=run.info.run_id
                        ),
                    )
                except (MlprojectError, MlflowException, PySparkException, Py4JJavaError) as error:
                    if known == wanted == [pointer]:
                        raise
                    print(f"{pointer}: {str(error).splitlines()[0]}", file=sys.stderr)
                    failed = True
                    continue
                done.append(followed)
                print(f"{pointer}: {told(followed.scored)}")
                print(f"{pointer}: {_readers(followed)}")
        if done:
            log_scored(scoring.total([followed.scored for followed in done]))
            mlflow.log_metric("coverage", min(followed.coverage for followed in done))
            served = [f"{found.version.pointer} = {found.version.uri}" for found in done]
            mlflow.set_tag("mlproject.serving", ", ".join(served))
        if failed:
            raise UserError("not every pointer could be followed (see above)")


def _readers(followed: rollouts.Followed) -> str:
    now = followed.version.uri
    if followed.before is None:
        return f"readers now see {now}"
    if followed.before == followed.version:
        return f"readers see {now}, as before"
    return f"readers now see {now}, before {followed.before.uri}"


if __name__ == "__main__":
    command(parser(), main)
