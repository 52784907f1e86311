"""Keeps every pointer true until it is stopped: looks at the registry again and again.

mlflow run . -e watch --env-manager local -P source=photos

With a webhook the next look comes sooner; the server's URL must reach this machine:

mlflow run . -e watch --env-manager local -P webhook=https://HOST/mlflow -P listen=0.0.0.0:8321
"""

import argparse
import contextlib
import os
import random
import sys
import threading
import time
from collections.abc import Iterator

import mlflow
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException

from mlproject.commands import ingest
from mlproject.errors import RefusedError, UserError
from mlproject.ingestion.reconciliation import SourceSettings, reconcile
from mlproject.integrations import mlflow_tracking
from mlproject.integrations.outages import error_message, spark_ended
from mlproject.integrations.spark_session import LazySession
from mlproject.lake import location
from mlproject.rollout import ledger, planning, runs
from mlproject.rollout.ledger import SCORING, SERVING
from mlproject.rollout.planning import LOST, REFUSED, SCORE, SWITCH, Plan
from mlproject.versions.registry import Version
from mlproject.watch import webhook_listener, webhook_registration
from pipelines import (
    command,
    listed,
    rescore,
    say_wait,
    stopped_by_signals,
)
from pipelines import parser as new_parser

# What may go wrong in a look and be gone in the next; requests' errors are OSErrors, and a server
# that answers with a page instead of JSON makes ValueErrors.
FAULTS = (*rescore.FAULTS, ValueError)
PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"}
LONGEST_S = 600  # between two looks, however many have failed
LOOK_S = 300  # of scoring in a look: then others may write, and images that came are answered
MORE_S = 2  # after such a look, in which they take the lock
HEALTH_S = 600  # between two lines about nothing new
SOURCE = ("", None)  # beside the pointers that are tried later
JITTER = 0.2  # share of the interval, so that many watchers do not ask at once


def parser() -> argparse.ArgumentParser:
    """The arguments of `watch`."""
    arguments = new_parser("watch", __doc__)
    rescore.add_arguments(arguments)
    add = arguments.add_argument
    add("--source", default="", help="folder or URI that is ingested at each look; empty = none")
    add("--interval", type=float, default=30, help="seconds between two looks, about")
    add("--idle", type=float, default=60, help="seconds without work until Spark is let go")
    add("--webhook", default="", help="URL by which the MLflow server reaches us; empty = none")
    add("--listen", default="127.0.0.1:8321", help="host:port where webhooks are heard")
    return arguments


def main(arguments: argparse.Namespace) -> None:
    """Looks until SIGTERM or Ctrl-C; the wave at hand is committed then."""
    rescore.check(arguments)
    for name, least in (("interval", 0.1), ("idle", 0)):
        if getattr(arguments, name) < least:
            raise UserError(f"{name}={getattr(arguments, name)} is below {least}")
    for name, value in PATIENCE.items():
        os.environ.setdefault(name, value)
    client = mlflow_tracking.connect()
    lake = location.locate_to_write(arguments.lake)
    own_run = mlflow_tracking.run("watch", vars(arguments), own=True)
    with own_run as run, stopped_by_signals() as stopped:
        bell = threading.Event()
        watch = _Watch(arguments, client, lake, run, stopped)
        with _doorbell(arguments, client, bell), contextlib.closing(watch):
            watch.until_stopped(bell)
        print(f"Stopped after {watch.looks} looks; what was committed stands", flush=True)
        while mlflow.active_run():
            with contextlib.suppress(MlflowException, OSError):  # a server that is away now
                mlflow.end_run("KILLED")


@contextlib.contextmanager
def _doorbell(
    arguments: argparse.Namespace, client: MlflowClient, bell: threading.Event
) -> Iterator[None]:
    """Hears webhooks, where one is wanted, and has the server send them."""
    if not arguments.webhook:
        yield
        return
    host, _, port = arguments.listen.rpartition(":")
    if not port.isdigit():
        raise UserError(f"listen={arguments.listen!r} is no HOST:PORT, such as 0.0.0.0:8321")
    secret = webhook_registration.secret_of_environment()
    app = webhook_listener.receiver(secret, bell.set)
    with webhook_listener.listening(app, host, int(port)) as taken:
        found = webhook_registration.register(client, arguments.webhook, secret)
        print(f"Webhooks of {found.url} are heard at {host}:{taken}", flush=True)
        if found.problem:
            print(f"{found.problem}. Looking every {arguments.interval:g} s", file=sys.stderr)
        yield


class _Watch:
    """Looks, and what is remembered from one to the next."""

    def __init__(
        self,
        arguments: argparse.Namespace,
        client: MlflowClient,
        lake: str,
        run: Run,
        stopped: threading.Event,
    ) -> None:
        self.arguments, self.client, self.lake = arguments, client, lake
        self.run, self.stopped = run, stopped
        self.looks = self.failed = 0
        self.told: dict[str, str] = {}  # pointer -> trouble that was told
        self.behind: dict[str, float] = {}  # pointer -> since when readers are behind, monotonic
        self.health = ""
        self.health_at = 0.0
        # Pointer and version -> failed tries, and when the next may be.
        self.tries: dict[tuple[str, Version | None], tuple[int, float]] = {}
        self.more = False  # whether the last look left something to score, for time
        self.spark = LazySession("mlproject watch")
        self.ingest = SourceSettings(arguments.source) if arguments.source else None

    def until_stopped(self, bell: threading.Event) -> None:
        """Looks, and waits for the bell or the next time."""
        while not self.stopped.is_set():
            bell.clear()  # before the look: what rings amid it brings another
            try:
                plans = self.look()
                if self.failed or not self.looks:  # what the server has missed
                    self._mend()
                self._tell_health(plans)
            except FAULTS as error:
                self.failed += 1
                words = error_message(error)
                if self.stopped.is_set():  # Spark may have been stopped too, in any of its steps
                    words = f"stopped amid its work, which the next watch does ({words})"
                self._say_once("", words)
                if spark_ended(error):
                    self.close()
            else:
                if self.failed:  # pointers are tried at once
                    self.tries.clear()
                    bell.set()
                self.failed = 0
                self._say_once("", "")
            self.looks += 1
            self._wait(bell)

    def look(self) -> list[Plan]:
        """Ingests, and follows the pointers that have moved or lack answers; what is left then."""
        if self.ingest and time.monotonic() >= self.tries.get(SOURCE, (0, 0.0))[1]:
            self._take(self.ingest)
        self.more = False
        plans = self._plans()
        todo = [plan for plan in plans if self._is_due(plan)]
        if not todo or self.stopped.is_set():
            return plans
        writing = location.writing(self.lake, "watch", on_wait=say_wait, stop=self.stopped.is_set)
        with writing:
            worker = rescore.Worker(self.arguments, self.client, self.run, self.spark, self.stopped)
            worker.until = min(worker.until, time.monotonic() + LOOK_S)
            with contextlib.closing(worker):
                for plan in todo:
                    self._follow(worker, plan)
        self.spark.used_at = time.monotonic()
        limits = self.arguments.max_images or self.arguments.max_bytes or self.arguments.max_minutes
        self.more = not limits and any(found.state == SCORING for found in worker.done)
        return self._plans()

    def close(self) -> None:
        """Lets Spark go, with its JVM."""
        self.spark.end()

    def _take(self, settings: SourceSettings) -> None:
        """Ingests; a source that is away is asked later and later, and holds no pointer up."""
        try:
            result = reconcile(
                self.spark, self.lake, settings, step=self.looks, stop=self.stopped.is_set
            )
        except FAULTS as error:
            if self.stopped.is_set() or spark_ended(error):
                raise
            self._put_off(SOURCE, settings.source, error_message(error))
            return
        self.tries.pop(SOURCE, None)
        self._say_once(settings.source, "")
        if result.changed:
            print(ingest.summary(result), flush=True)

    def _follow(self, worker: rescore.Worker, plan: Plan) -> None:
        """Follows one pointer; one that fails is tried again later and later."""
        faults = worker.follow(self.lake, [plan.pointer])
        if not faults:
            self.tries.pop(_tried(plan), None)
            follows = {found.version.pointer for found in worker.done if found.state == SERVING}
            if plan.pointer in follows:  # though it may have moved again since
                self.behind.pop(plan.pointer, None)
            return
        if self.stopped.is_set():
            raise faults[0]
        if plan.action == REFUSED and isinstance(faults[0], RefusedError):
            self.tries.pop(_tried(plan), None)
            return  # as was known: it was followed for the version that readers see
        words = error_message(faults[0]).removeprefix(f"{plan.pointer}: ")
        self._put_off(_tried(plan), plan.pointer, words)
        self._mend()

    def _put_off(self, what: tuple[str, Version | None], name: str, words: str) -> None:
        """Tells of a fault, and when the next try of it may be."""
        self._say_once(name, words)
        count = self.tries.get(what, (0, 0.0))[0] + 1
        self.tries[what] = (count, time.monotonic() + self._later(count))

    def _is_due(self, plan: Plan) -> bool:
        lost = plan.action in (LOST, REFUSED)
        if plan.action == LOST or _tried(plan) not in self.tries:
            self._say_once(plan.pointer, f"{plan.action}, {plan.why}" if lost else "")
        wanted = plan.action in (SCORE, SWITCH) or (plan.action == REFUSED and planning.work(plan))
        return bool(wanted) and time.monotonic() >= self.tries.get(_tried(plan), (0, 0.0))[1]

    def _later(self, failed: int) -> float:
        """Seconds to the next try after so many that failed in a row."""
        interval = self.arguments.interval
        return float(min(interval * 2 ** min(failed, 30), max(LONGEST_S, interval)))

    def _mend(self) -> None:
        """Tells runs and registry what they have missed, as far as they can be told now."""
        with contextlib.suppress(*FAULTS):
            page = ledger.read(self.lake)
            for pointer in page.pointers():
                runs.mend(self.client, page, pointer)

    def _plans(self) -> list[Plan]:
        wanted = listed(self.arguments.pointers)
        retry = self.arguments.retry == "true"
        plans = planning.plan(self.client, self.lake, wanted, retry=retry)
        now = time.monotonic()
        for plan in plans:
            if planning.is_behind(plan):
                self.behind.setdefault(plan.pointer, now)
            else:
                self.behind.pop(plan.pointer, None)
        return plans

    def _say_once(self, pointer: str, trouble: str) -> None:
        if trouble and self.told.get(pointer) != trouble:
            print(f"{pointer or 'This look failed'}: {trouble}", file=sys.stderr, flush=True)
        if not trouble and self.told.get(pointer):
            print(f"{pointer or 'The looks'}: well again", flush=True)
        self.told[pointer] = trouble

    def _tell_health(self, plans: list[Plan]) -> None:
        """One line when something is new, or nothing was said for long; and the metrics."""
        now = time.monotonic()
        lag = max((now - since for since in self.behind.values()), default=0.0)
        backlog = sum(missing.covered.missing for plan in plans for missing in planning.work(plan))
        facts = f"{len(plans)} pointers, {len(self.behind)} behind, backlog {backlog} images"
        if facts == self.health and now - self.health_at < HEALTH_S:
            return
        self.health, self.health_at = facts, now
        now_words = time.strftime("%H:%M:%S")
        words = f"health: look {self.looks + 1} at {now_words}: {facts}, lag {lag:.0f} s"
        print(words, flush=True)
        metrics = {"looks": self.looks + 1, "lag_s": lag, "backlog": backlog}
        for key, value in {**metrics, "last_look": time.time()}.items():
            self.client.log_metric(self.run.info.run_id, key, value, step=self.looks)

    def _wait(self, bell: threading.Event) -> None:
        """Until the bell rings, the time has come, or we are stopped; lets an idle Spark go."""
        interval = MORE_S if self.more else self._later(self.failed)
        until = time.monotonic() + interval * random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311
        while not self.stopped.is_set() and time.monotonic() < until:
            if bell.wait(min(0.2, self.arguments.interval)):
                self.tries.clear()
                return
            if time.monotonic() - self.spark.used_at > self.arguments.idle:
                self.close()


def _tried(plan: Plan) -> tuple[str, Version | None]:
    return plan.pointer, plan.target.version if plan.target else None


if __name__ == "__main__":
    command(parser(), main)
