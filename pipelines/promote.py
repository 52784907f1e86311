"""Points an alias, or a stage, at a model version that has passed the gates.

    mlflow run . -e promote --env-manager local -P model=models:/photos/3

Where a version serves the pointer, the new one is compared with it on images of the lake first.
"""

import argparse
import getpass
import json
import time
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import replace
from typing import Any

import mlflow
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException

from mlproject.errors import MlprojectError, RefusedError, UserError, first_line
from mlproject.gates import approvals, checks, comparison, summary
from mlproject.gates.checks import BLOCK, OFF, WARN, GateResults, VersionRunner
from mlproject.gates.verdicts import REFUSED, Limits
from mlproject.integrations import mlflow_tracking, spark_session
from mlproject.integrations.framework_process import process
from mlproject.integrations.spark_session import LazySession
from mlproject.lake import location
from mlproject.reporting import gate_page, html
from mlproject.rollout import ledger, runs
from mlproject.scoring import scorer, scoring_runs
from mlproject.versions import reference_results, registry, version_files
from mlproject.versions.registry import Version
from pipelines import (
    add_json,
    command,
    print_table,
    progress,
    require_shares,
    say_wait,
    stdout_to_stderr,
    stopped_by_signals,
)
from pipelines import parser as new_parser
from pipelines.score import files_of

REFERENCE_S = 600  # seconds in which a version must load and score the reference images


def parser() -> argparse.ArgumentParser:
    """The arguments of `promote`."""
    arguments = new_parser("promote", __doc__)
    add, limits = arguments.add_argument, Limits()
    add("--model", required=True, help="model URI of the version")
    add("--alias", default="champion", help="the alias that moves")
    add("--stage", default="", help="the stage that moves instead of an alias")
    add("--lake", default="lake", help="folder or URI of the tables")
    add(
        "--gate",
        default="",
        choices=("", OFF, WARN, BLOCK),
        help="off, warn (tell and move), block; empty = block where a version serves the pointer",
    )
    add("--sample", type=int, default=limits.sample, help="images that are compared, at most")
    add("--min_accuracy", type=float, default=limits.min_accuracy, help="0..1; 0 = no limit")
    add(
        "--max_drop",
        type=float,
        default=limits.max_drop,
        help="accuracy that may be lost, of all images and of each label, 0..1; 1 = no limit",
    )
    add(
        "--max_changed",
        type=float,
        default=limits.max_changed,
        help="share of the sample whose label may change, 0..1; 1 = no limit",
    )
    truth: dict[str, Any] = {"default": "false", "choices": ("true", "false")}
    add("--require_approval", **truth, help="true = only a version that somebody approved")
    add("--approve", **truth, help="true = you approve it, and it is promoted")
    add("--dry_run", **truth, help="true = tell, move nothing")
    add_json(arguments)
    return arguments


def main(arguments: argparse.Namespace) -> None:
    """Moves one pointer, when the gates let it."""
    limits = _limits(arguments)
    client = mlflow_tracking.connect()
    with mlflow_tracking.run("promote", vars(arguments)) as run:
        with ExitStack() as stack:
            if arguments.json == "true":
                stack.enter_context(stdout_to_stderr())
            version = replace(registry.resolve(client, arguments.model), pointer=None)
            pointer = registry.pointer(version, alias=arguments.alias, stage=arguments.stage)
            lake = location.locate(arguments.lake)
            serving = None if arguments.gate == OFF else ledger.read(lake).serving(pointer)
            before = serving.version if serving else None
            mode = arguments.gate or (BLOCK if before else OFF)
            spark = stack.enter_context(closing(LazySession("mlproject promote")))
            results = checks.check_version(
                client,
                lake,
                version,
                before,
                _Worker(client, run, lake, version, spark).runner(),
                limits=limits,
                mode=mode,
                approved=arguments.approve == "true",
            )
            outcome = results.outcome(mode)
            named = {"mlproject.pointer": pointer, **scoring_runs.version_tags(version)}
            mlflow.set_tags({**named, "mlproject.gate": outcome})
            if mode != OFF:
                _log(_page(pointer, version, before, results, outcome, spark))
        stands = _named(client, pointer)
        if outcome != REFUSED and arguments.dry_run == "false":
            _move(client, run, version, results, arguments)
        _tell(arguments, pointer, stands, version, results, outcome)
        if outcome == REFUSED:
            names = ", ".join(verdict.gate for verdict in results.refused)
            raise RefusedError(f"{pointer} stays on {stands}: {version.uri} is refused by {names}")


def _limits(arguments: argparse.Namespace) -> Limits:
    """The limits asked for.

    Raises:
        UserError: One makes no sense.
    """
    require_shares(arguments, "min_accuracy", "max_drop", "max_changed")
    if arguments.sample < 1:
        raise UserError(f"sample={arguments.sample} is below 1")
    return Limits(
        arguments.sample,
        arguments.min_accuracy,
        arguments.max_drop,
        arguments.max_changed,
        arguments.require_approval == "true",
    )


class _Worker:
    """Does for the gates what needs sessions and processes."""

    def __init__(
        self, client: MlflowClient, run: Run, lake: str, version: Version, spark: LazySession
    ) -> None:
        self.client, self.run, self.lake = client, run, lake
        self.version, self.spark = version, spark

    def runner(self) -> VersionRunner:
        """How the gates run a version."""
        return VersionRunner(self.reference_fault, self.score)

    def reference_fault(self, version: Version) -> str:
        """What is wrong with a version's results on the reference images; "" = nothing."""
        found = self.client.get_model_version(version.name, str(version.version))
        framework = found.tags.get("framework", "")
        try:
            # A process of its own: what a version imports, or breaks, stays in it.
            with process(framework, timeout_s=REFERENCE_S) as call:
                return call(reference_results.fault, version.loaded_from)
        except (MlprojectError, MlflowException) as error:
            return first_line(error)

    def score(self, version: Version, image_ids: Sequence[str]) -> None:
        """Scores images with a version; the rows stay, whatever the gates say."""
        candidate = version == self.version
        # Not `files_of`, which notes the digest of a version that may not be promoted.
        files = version_files.read(version) if candidate else files_of(self.client, version)
        lake, run_id = location.locate_to_write(self.lake), self.run.info.run_id
        if candidate:  # the run tells of one version
            scoring_runs.describe(self.client, run_id, version, files, spark_session.kind())
        with (
            stopped_by_signals() as stopped,
            location.writing(lake, f"promote {version.uri}", on_wait=say_wait, stop=stopped.is_set),
            progress(f"score {version.uri}") as [on_wave],
        ):
            scored = scorer.score_pending(
                self.spark(),
                lake,
                version,
                settings=scorer.Settings(run_id=run_id),
                only=image_ids,
                stop=stopped.is_set,
                on_progress=on_wave,
            )
            if stopped.is_set():
                raise KeyboardInterrupt
        if candidate:
            scoring_runs.log(self.client, run_id, scored)


def _page(
    pointer: str,
    version: Version,
    before: Version | None,
    results: GateResults,
    outcome: str,
    spark: LazySession,
) -> gate_page.GatePage:
    """What the gates found, with the changed images and pictures of some."""
    paths, thumbnails = {}, {}
    difference, images = results.comparison.difference, results.comparison.images
    if difference and difference.changes and images:
        ids = [change.image.image_id for change in difference.changes]
        paths = comparison.image_paths(images.path.removesuffix("/images"), ids, images)
        shown = [change.image.image_id for change in gate_page.shown_changes(difference)]
        chosen = {image_id: paths[image_id] for image_id in shown if image_id in paths}
        thumbnails = html.pictures(images.read(spark()), chosen)
    made_at = time.time_ns() // 1000
    return gate_page.GatePage(
        pointer, version, before, outcome, results, paths, thumbnails, made_at
    )


def _log(page: gate_page.GatePage) -> None:
    """Logs the page, the changed images as a table, and the figures, to the active run."""
    results = page.results
    mlflow.log_text(gate_page.render(page), runs.GATES)
    difference = results.comparison.difference
    if difference is not None:
        changed = summary.changed_images(difference, page.paths)
        mlflow.log_table(changed, "changed.json")
    mlflow.log_metrics(summary.metrics(results))


def _named(client: MlflowClient, pointer: str) -> str:
    """The version that a pointer names now, or `nothing`."""
    try:
        return registry.resolve(client, pointer).uri
    except UserError:
        return "nothing"


def _move(
    client: MlflowClient,
    run: Run,
    version: Version,
    results: GateResults,
    arguments: argparse.Namespace,
) -> None:
    """Moves the pointer, with the digest and the approval noted on the version first."""
    files = results.files
    if files is None:
        raise ValueError("a version without files passed the gates")
    version_files.require_unchanged(client, version, files)
    if arguments.approve == "true":
        who = run.data.tags.get("mlflow.user") or getpass.getuser()
        approvals.approve(client, version, files.digest, who)
    registry.move(client, version, alias=arguments.alias, stage=arguments.stage)


def _tell(
    arguments: argparse.Namespace,
    pointer: str,
    named: str,
    version: Version,
    results: GateResults,
    outcome: str,
) -> None:
    """Tells what the gates said and what was moved: tables and words, or JSON."""
    moved = outcome != REFUSED and arguments.dry_run == "false"
    if arguments.json == "true":
        facts = {"pointer": pointer, "before": named, "version": version.uri, "moved": moved}
        facts |= {"gate": outcome, **summary.json_values(results)}
        print(json.dumps(facts, indent=2))
        return
    if outcome != OFF:
        for columns, rows in summary.tables(results):
            print_table(columns, rows)
            print()
    if outcome != REFUSED:
        dry = "" if moved else " (dry run: nothing was moved)"
        print(f"{pointer}: {named} -> {version.uri}{dry}")


if __name__ == "__main__":
    command(parser(), main)
