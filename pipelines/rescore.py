"""Makes readers follow: scores what the version behind each pointer has not said, then switches.

mlflow run . -e rescore --env-manager local -P pointers=models:/photos@champion
"""

import argparse
import sys
import threading
import time
from contextlib import closing, suppress
from functools import partial

from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from py4j.protocol import Py4JError  # a worker that crashes is no PySparkException
from pyspark.errors import PySparkException

from mlproject.errors import MlprojectError, RefusedError, UserError
from mlproject.integrations import mlflow_tracking
from mlproject.integrations import spark_session as sessions
from mlproject.integrations.outages import error_message, spark_ended
from mlproject.integrations.spark_session import LazySession
from mlproject.lake import location
from mlproject.rollout import ledger, reconciliation, runs
from mlproject.rollout.ledger import SCORING, SUPERSEDED, Entry
from mlproject.rollout.reconciliation import Followed, Rules, Stop, Work
from mlproject.scoring import scorer, scoring_runs
from mlproject.scoring.scorer import ScoringResult
from mlproject.versions import registry
from mlproject.versions.registry import Version
from mlproject.versions.version_files import Files
from pipelines import (
    add_json,
    command,
    listed,
    plan,
    progress,
    require_shares,
    say_wait,
    stopped_by_signals,
)
from pipelines import parser as new_parser
from pipelines.score import add_task_timeout, files_of, require_task_timeout, told

FAULTS = (MlprojectError, MlflowException, PySparkException, Py4JError, OSError)


def parser() -> argparse.ArgumentParser:
    """The arguments of `rescore`."""
    arguments = new_parser("rescore", __doc__)
    add_arguments(arguments)
    add_json(arguments)
    arguments.add_argument(
        "--plan", default="false", choices=("true", "false"), help="true = tell, do nothing"
    )
    return arguments


def add_arguments(arguments: argparse.ArgumentParser) -> None:
    """The options that `rescore` and `watch` share."""
    plan.add_arguments(arguments)
    add, rules = arguments.add_argument, Rules()
    add(
        "--min_coverage",
        type=float,
        default=rules.min_coverage,
        help="share of the images answered before readers switch, 0..1",
    )
    add(
        "--max_error_rate",
        type=float,
        default=rules.max_error_rate,
        help="share of the images readable before that may get an error, 0..1",
    )
    add_task_timeout(arguments)


def main(arguments: argparse.Namespace) -> None:
    """Follows each pointer; one that cannot be followed does not stop the others."""
    if arguments.plan == "true":
        plan.main(arguments)
        return
    check(arguments)
    client = mlflow_tracking.connect()
    with (
        mlflow_tracking.run("rescore", vars(arguments)) as run,
        stopped_by_signals() as stopped,
        closing(LazySession("mlproject rescore")) as spark,
    ):
        lake = location.locate_to_write(arguments.lake)
        wanted = listed(arguments.pointers)
        if len(wanted) == 1:
            registry.resolve(client, wanted[0])  # told before it waits for others
        writing = location.writing(lake, "rescore", on_wait=say_wait, stop=stopped.is_set)
        with writing:
            known = ledger.read(lake).wanted(wanted)
            with closing(Worker(arguments, client, run, spark, stopped)) as worker:
                faults = worker.follow(lake, known)
        with suppress(MlflowException, OSError):  # a server that is away now hides no fault
            worker.log()
        if stopped.is_set():
            raise KeyboardInterrupt
        if faults:
            others = [fault for fault in faults if not isinstance(fault, MlprojectError)]
            if others or len(known) == 1:
                raise (others or faults)[0]
            refused = any(isinstance(fault, RefusedError) for fault in faults)
            kind = RefusedError if refused else UserError
            raise kind("not every pointer could be followed (see above)")


def check(arguments: argparse.Namespace) -> None:
    """Raises UserError for numbers that make no sense."""
    require_shares(arguments, "min_coverage", "max_error_rate")
    for name in ("max_images", "max_bytes", "max_minutes"):
        if getattr(arguments, name) < 0:
            raise UserError(f"{name}={getattr(arguments, name)} is below 0")
    require_task_timeout(arguments)


class Worker:
    """Follows pointers within the limits of one run, with runs of their own for roll-outs."""

    def __init__(
        self,
        arguments: argparse.Namespace,
        client: MlflowClient,
        run: Run,
        spark: LazySession,
        stopped: threading.Event,
    ) -> None:
        self.arguments, self.client, self.run = arguments, client, run
        self.spark, self.stopped = spark, stopped
        self.rules = Rules(
            arguments.min_coverage, arguments.max_error_rate, arguments.retry == "true"
        )
        self.images, self.size_bytes = arguments.max_images, arguments.max_bytes
        self.until = time.monotonic() + (60 * arguments.max_minutes or float("inf"))
        self.scored: list[ScoringResult] = []
        self.done: list[Followed] = []
        self._runs: dict[Version, str] = {}
        self._told: dict[str, Entry] = {}  # the last row of each run
        self._files: dict[str, Files] = {}

    def follow(self, lake: str, pointers: list[str]) -> list[Exception]:
        """Follows them one after the other; the faults of those that could not be."""
        faults: list[Exception] = []
        for pointer in pointers:
            if self.stopped.is_set():
                break
            work = Work(partial(self._score, lake), self._run_id, self._wrote, self.stopped.is_set)
            before = len(self.scored)
            try:
                followed = reconciliation.follow(self.client, lake, pointer, work, rules=self.rules)
                runs.mend(self.client, ledger.read(lake), pointer)
            except FAULTS as error:
                faults.append(error)
                if spark_ended(error):  # the next pointer starts another
                    self.spark.end()
                if len(pointers) > 1:
                    words = error_message(error).removeprefix(f"{pointer}: ")
                    print(f"{pointer}: {words}", file=sys.stderr, flush=True)
                continue
            self.done.append(followed)
            words = _done(self.scored[before:], followed)
            print(f"{pointer}: {words}\n{pointer}: {_readers(followed)}", flush=True)
            if followed.trouble:
                print(f"{pointer}: {followed.trouble}", file=sys.stderr, flush=True)
        return faults

    def log(self) -> None:
        """Logs what was done to the verb's run; by the client, as MLflow's others ask Spark too."""
        images = sum(scored.images for scored in self.scored)
        seconds = sum(scored.seconds for scored in self.scored)
        metrics = {
            "images": images,
            "images_per_second": images / seconds if seconds else 0,
            "errors": sum(scored.errors for scored in self.scored),
        }
        if self.done:
            metrics["coverage"] = min(found.covered.share for found in self.done)
            served = [f"{found.version.pointer} = {found.version.uri}" for found in self.done]
            self.client.set_tag(self.run.info.run_id, "mlproject.serving", ", ".join(served))
        for key, value in metrics.items():
            self.client.log_metric(self.run.info.run_id, key, value)

    def close(self) -> None:
        """Ends the runs of roll-outs; those that go on later are marked so."""
        for run_id in self._runs.values():
            last = self._told.get(run_id)
            with suppress(MlflowException, OSError):  # the server may be what went away
                if last is None:  # nothing came of it
                    stopped = self.stopped.is_set()
                    self.client.set_terminated(run_id, "KILLED" if stopped else "FINISHED")
                elif last.state == SCORING:
                    self.client.update_run(run_id, status="SCHEDULED")
        self._runs.clear()

    def _over(self) -> bool:
        used = (self.arguments.max_images and not self.images) or (
            self.arguments.max_bytes and not self.size_bytes
        )
        return bool(used) or time.monotonic() >= self.until

    def _score(self, lake: str, version: Version, stop: Stop) -> ScoringResult | None:
        if self._over():
            return None
        files, kind = self._files_of(version), sessions.kind()
        run_id = self._run_id(version, None)
        if not scoring_runs.describe(self.client, run_id, version, files, kind):
            # Begun with other packages: a run tells of one environment.
            self.client.set_terminated(self._runs.pop(version))
            run_id = self._run_id(version, None)
            scoring_runs.describe(self.client, run_id, version, files, kind)
        now = ledger.read(lake).serving(str(version.pointer))
        settings = scorer.Settings(
            run_id=run_id,
            quarantine=now is not None and now.version == version,
            max_images=self.images,
            max_bytes=self.size_bytes,
            task_timeout=self.arguments.task_timeout,
        )
        with progress(f"score {version.uri}") as [on_wave]:

            def told_wave(done: int, total: int) -> None:
                on_wave(done, total)
                self.images = max(0, settings.max_images - done)  # also if a fault follows
                with suppress(MlflowException, OSError):  # what is lost is a point of a curve
                    self._tell_coverage(run_id, done)

            scored = scorer.score_pending(
                self.spark(),
                lake,
                version,
                settings=settings,
                stop=lambda: stop() or self._over(),
                on_progress=told_wave,
            )
        self.size_bytes -= min(self.size_bytes, scored.size_bytes)
        self.scored.append(scored)
        scoring_runs.log(self.client, run_id, scored)
        return scored

    def _files_of(self, version: Version) -> Files:
        """What a version holds, read once, and the same as when it was promoted."""
        if version.model_id not in self._files:
            self._files[version.model_id] = files_of(self.client, version)
        return self._files[version.model_id]

    def _run_id(self, version: Version, last: Entry | None) -> str:
        if version not in self._runs:
            run_id = runs.begin(self.client, version, last, self.run)
            self._runs[version] = run_id
            if last and last.run_id == run_id:
                self._told[run_id] = last
        return self._runs[version]

    def _wrote(self, entry: Entry) -> None:
        self._told[entry.run_id] = entry
        if entry.state == SUPERSEDED:  # should it serve again, in a run of its own
            left = self._runs.pop(entry.version, None)
            if left and left not in self._told:  # nothing came of it
                self.client.set_terminated(left)
        runs.tell(self.client, entry)

    def _tell_coverage(self, run_id: str, done: int) -> None:
        covered = self._told[run_id].covered if run_id in self._told else None
        if covered and covered.images:
            answered = covered.predicted + done
            self.client.log_metric(run_id, "coverage", answered / covered.images, step=answered)


def _done(scored: list[ScoringResult], followed: Followed) -> str:
    done = scorer.total(scored) if scored else None
    if done and (done.images or done.unreadable):
        return told(done)
    return "nothing was scored" if followed.covered.missing else "nothing to score"


def _readers(followed: Followed) -> str:
    now, covered = followed.version.uri, followed.covered
    if followed.state == SCORING:
        seen = followed.before.uri if followed.before else "nothing"
        return f"readers see {seen}, as before; {now} has {covered.missing} images left to answer"
    if followed.before is None:
        return f"readers now see {now}"
    if followed.before == followed.version:
        left = f"; {covered.missing} images left to answer" if covered.missing else ""
        return f"readers see {now}, as before{left}"
    return f"readers now see {now}, before {followed.before.uri}"


if __name__ == "__main__":
    command(parser(), main)
