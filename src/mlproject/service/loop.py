"""The loop of a watch: ingest, roll out what is due, log the state, wait."""

import contextlib
import random
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from mlflow import MlflowClient
from mlflow.entities import Run

from mlproject.errors import RefusedError
from mlproject.ingestion import reconciliation as ingestion
from mlproject.ingestion.reconciliation import IngestResult
from mlproject.integrations.outages import error_message, spark_ended
from mlproject.integrations.spark_session import LazySession
from mlproject.rollout import ledger, planning, reconciliation, rescoring, runs
from mlproject.rollout.decision import Policy
from mlproject.rollout.ledger import SCORING, SERVING
from mlproject.rollout.planning import LOST, REFUSED, SCORE, SWITCH, AliasPlan
from mlproject.rollout.reconciliation import RolloutResult
from mlproject.rollout.runs import RolloutRuns
from mlproject.rollout.version_scoring import VersionScorer
from mlproject.service.health import Reconciled
from mlproject.service.leases import Leases, subject_of
from mlproject.service.metrics import Metrics
from mlproject.service.retries import Retries, Troubles, delay_s
from mlproject.service.state import StatusReport, WatchState
from mlproject.versions.version import Version

# What may fail in a reconciliation and work in the next; errors of requests are OSErrors, and a
# server that returns a page instead of JSON makes ValueErrors.
FAULTS = (*rescoring.FAULTS, ValueError)
SCORING_S = 300  # of a reconciliation: then new images are ingested, and predicted first
CONTINUE_S = 2  # until the reconciliation after one that this limit ended
HEALTH_S = 600  # between two reports without news
POLL_S = 0.2  # how often a waiting watch calls `stop`
JITTER = 0.2  # share of the interval, so that many watches do not call a server at once
ITSELF = "This reconciliation"  # the subject of faults that are of no single alias


@dataclass(frozen=True, slots=True)
class Options:
    """The options of a watch, as `watch` takes them."""

    pointers: Sequence[str] = ()
    limits: tuple[int, int, float] = (0, 0, 0)
    """Images, bytes and minutes."""
    task_timeout: float = 600
    source: str = ""
    interval: float = 30
    idle: float = 60


@dataclass(frozen=True, slots=True)
class Callbacks:
    """Where a watch reports, as `watch` takes it."""

    stop: Callable[[], bool]
    on_progress: Callable[[str, int, int], None]
    on_message: Callable[[str], None]
    on_fault: Callable[[str], None]
    on_rollout: Callable[[RolloutResult], None]
    on_ingest: Callable[[IngestResult], None]
    on_health: Callable[[Reconciled], None]


@dataclass(frozen=True, slots=True)
class Service:
    """What all reconciliations of a watch share."""

    client: MlflowClient
    run: Run
    lake: str
    spark: LazySession
    policy: Policy
    options: Options
    report: Callbacks
    retries: Retries
    troubles: Troubles
    state: WatchState
    status: StatusReport
    metrics: Metrics
    leases: Leases


def reconcile_until_stopped(service: Service, trigger: threading.Event) -> int:
    """Reconciles at each trigger and interval until the watch is stopped; how often it did."""
    state, failures = service.state, 0
    while not service.report.stop():
        trigger.clear()  # before: a trigger in the middle brings another reconciliation
        service.status.enter("reconciling")
        began, continues = time.monotonic(), False
        try:
            plans, continues = reconcile(service)
            if failures or not state.count:  # what the server has missed
                _record_missed(service)
            log_health(service, plans)
        except FAULTS as error:
            failures += 1
            service.metrics.failures.inc()
            message = error_message(error)
            if service.report.stop():  # what stops us may have stopped Spark too
                message = f"stopped in the middle, the next watch continues ({message})"
            service.troubles.report(ITSELF, message)
            if spark_ended(error):
                service.spark.end()
        else:
            if failures:  # aliases are tried at once
                service.retries.clear()
                trigger.set()
            failures, state.succeeded_at = 0, datetime.now(UTC)
            service.metrics.succeeded.set_to_current_time()
            service.troubles.report(ITSELF, "")
        state.count, state.failures = state.count + 1, failures
        service.metrics.reconciliations.inc()
        service.metrics.seconds.inc(time.monotonic() - began)
        service.status.enter("waiting")
        delay = CONTINUE_S if continues else delay_s(failures, service.options.interval)
        _wait(service, trigger, delay)
    return state.count


def reconcile(service: Service) -> tuple[list[AliasPlan], bool]:
    """Ingests, and rolls out the aliases that are due.

    It gives what is left to do, and whether the next reconciliation continues at once.
    """
    service.state.waits_for.clear()
    _ingest(service)
    plans = _plans(service)
    service.leases.observe([plan.alias for plan in plans])
    due = [plan for plan in plans if _is_due(service, plan)]
    stop = service.report.stop
    if not due or stop():
        return plans, False
    budget = rescoring.budget(*service.options.limits)
    budget.until = min(budget.until, time.monotonic() + SCORING_S)
    scorer = VersionScorer(
        service.client,
        service.lake,
        service.spark,
        RolloutRuns(service.client, service.run),
        budget,
        service.options.task_timeout,
        service.report.on_progress,
        service.report.on_message,
        service.status.progress,
        service.metrics.committed,
    )
    try:
        results = [_roll_out(service, scorer, plan) for plan in due if not stop()]
    finally:
        for scored in scorer.results:
            service.metrics.scored(scored)
        scorer.runs.ended(stopped=stop())
    if any(results):
        service.spark.used_at = time.monotonic()
    is_scoring = any(result and result.state == SCORING for result in results)
    return _plans(service), is_scoring and not any(service.options.limits)


def log_health(service: Service, plans: Sequence[AliasPlan]) -> None:
    """Reports the state when it has changed, or was not reported for long; also as metrics."""
    state, now = service.state, time.monotonic()
    state.planned(plans)
    news = (state.aliases, len(state.behind), state.backlog)
    if news == state.logged and now - state.logged_s < HEALTH_S:
        return
    state.logged, state.logged_s = news, now
    at = datetime.now(UTC).isoformat(timespec="seconds")
    number = state.count + 1
    found = replace(state.reconciled(), reconciliations=number, failures=0, succeeded_at=at)
    service.report.on_health(found)
    metrics = {
        "reconciliations": found.reconciliations,
        "lag_s": found.lag_s,
        "backlog": found.backlog,
        "last_reconciliation": time.time(),
    }
    for key, value in metrics.items():
        service.client.log_metric(service.run.info.run_id, key, value, step=state.count)


def _ingest(service: Service) -> None:
    """Ingests the source; one that is away is tried later and later, and delays no alias."""
    source, stop = service.options.source, service.report.stop
    if not source or not service.retries.is_due(source):
        return
    subject = subject_of(source)
    service.leases.observe([subject])
    try:
        result = ingestion.reconcile(
            service.spark,
            service.lake,
            source,
            step=service.state.count,
            stop=lambda: stop() or not service.leases.may_go_on(subject),
            on_progress=service.metrics.ingesting(),
            lease=service.leases.held(subject),
        )
    except FAULTS as error:
        if stop() or spark_ended(error):
            raise
        _put_off(service, source, source, error)
        return
    service.retries.succeeded(source)
    service.troubles.report(source, "")
    if result.changed:
        service.report.on_ingest(result)


def _plans(service: Service) -> list[AliasPlan]:
    found = planning.alias_plans(
        service.client, service.lake, service.options.pointers, retry=service.policy.retry
    )
    before, now = service.state.behind, time.monotonic()
    behind = [plan.alias for plan in found if plan.is_behind]
    service.state.behind = {alias: before.get(alias, now) for alias in behind}
    return found


def _is_due(service: Service, plan: AliasPlan) -> bool:
    """Whether an alias has something to do, and its last fault is long enough ago."""
    key = _key(plan)
    is_lost = plan.action == LOST
    if is_lost or key not in service.retries:
        trouble = f"{plan.action}, {plan.reason}" if is_lost or plan.action == REFUSED else ""
        service.troubles.report(plan.alias, trouble)
    wanted = plan.action in (SCORE, SWITCH) or (plan.action == REFUSED and plan.work)
    return bool(wanted) and service.retries.is_due(key)


def _roll_out(service: Service, scorer: VersionScorer, plan: AliasPlan) -> RolloutResult | None:
    """Rolls out one alias; one that fails is tried again later and later."""
    key, stop, alias = _key(plan), service.report.stop, plan.alias
    leases = service.leases
    try:
        with leases.held(alias) as is_ours:
            if not is_ours:
                return None

            def stop_or_lost() -> bool:
                return stop() or not leases.may_go_on(alias)

            result = reconciliation.reconcile(alias, scorer, service.policy, stop_or_lost)
    except rescoring.FAULTS as error:
        if spark_ended(error):
            service.spark.end()
        if stop():
            raise
        # Known before: only its serving version was kept up to date.
        if plan.action == REFUSED and isinstance(error, RefusedError):
            service.retries.succeeded(key)
            return None
        _put_off(service, key, plan.alias, error)
        _record_missed(service)
        return None
    service.retries.succeeded(key)
    if result.state == SERVING:  # though the alias may have been moved again since
        service.state.behind.pop(plan.alias, None)
    service.report.on_rollout(result)
    return result


def _put_off(
    service: Service, key: str | tuple[str, Version | None], subject: str, error: Exception
) -> None:
    service.troubles.report(subject, error_message(error).removeprefix(f"{subject}: "))
    service.retries.failed(key)


def _record_missed(service: Service) -> None:
    """Records what MLflow has missed, as far as its server can be reached now."""
    with contextlib.suppress(*FAULTS):
        rows = ledger.read(service.lake)
        for alias in rows.known():
            runs.record_missed(service.client, rows, alias)


def _wait(service: Service, trigger: threading.Event, delay: float) -> None:
    """Waits for a trigger, the time, or the end of the watch; ends an idle Spark session."""
    until = time.monotonic() + delay * random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311
    while not service.report.stop() and time.monotonic() < until:
        if trigger.wait(min(POLL_S, service.options.interval)):
            service.retries.clear()
            return
        if time.monotonic() - service.spark.used_at > service.options.idle:
            service.spark.end()


def _key(plan: AliasPlan) -> tuple[str, Version | None]:
    """What is tried: an alias with the version that it names."""
    return plan.alias, plan.target.version if plan.target else None
