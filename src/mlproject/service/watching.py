"""The public function `watch`: a loop of reconciliations, and the webhooks that trigger them."""

import contextlib
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import mlflow
from mlflow.exceptions import MlflowException

from mlproject.errors import require_at_least
from mlproject.ingestion.reconciliation import IngestResult
from mlproject.integrations import mlflow_tracking
from mlproject.integrations.spark_session import LazySession
from mlproject.lake import location
from mlproject.masking import mask
from mlproject.rollout import rescoring
from mlproject.rollout.decision import Policy
from mlproject.rollout.reconciliation import RolloutResult
from mlproject.service import webhook_listener, webhook_registration
from mlproject.service.health import Reconciled, status_file
from mlproject.service.leases import Leases
from mlproject.service.loop import Callbacks, Options, Service, reconcile_until_stopped
from mlproject.service.metrics import Metrics, address, served
from mlproject.service.retries import Retries, Troubles
from mlproject.service.state import StatusReport, WatchState

# For a watch the next reconciliation is the retry.
PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"}


@dataclass(frozen=True, slots=True)
class WatchResult:
    """What a watch did until it was stopped."""

    reconciliations: int
    """How often it reconciled."""


def watch(
    pointers: Sequence[str] = (),
    lake: str = "lake",
    *,
    max_images: int = 0,
    max_bytes: int = 0,
    max_minutes: float = 0,
    retry: bool = False,
    min_coverage: float = 1.0,
    max_error_rate: float = 0.05,
    task_timeout: float = 600,
    source: str = "",
    interval: float = 30,
    idle: float = 60,
    webhook: str = "",
    listen: str = "127.0.0.1:8321",
    metrics: str = "",
    status: str = "",
    stop: Callable[[], bool] = lambda: False,
    on_progress: Callable[[str, int, int], None] = lambda version, done, total: None,
    on_message: Callable[[str], None] = lambda message: None,
    on_fault: Callable[[str], None] = lambda message: None,
    on_rollout: Callable[[RolloutResult], None] = lambda result: None,
    on_ingest: Callable[[IngestResult], None] = lambda result: None,
    on_health: Callable[[Reconciled], None] = lambda found: None,
) -> WatchResult:
    """Ingests new images and rolls out moved aliases, again and again, until it is stopped.

    Args:
        pointers: URIs of aliases or stages, such as models:/photos@champion; empty = all in table
            rollouts.
        lake: Folder or URI of the tables.
        max_images: Images to score in a reconciliation; 0 = all.
        max_bytes: Bytes to read in a reconciliation; 0 = no limit.
        max_minutes: Minutes that a reconciliation scores; 0 = no limit.
        retry: Also rolls out versions that failed before.
        min_coverage: Share of the images that a version must have predicted to serve, 0..1.
        max_error_rate: Share of the images readable before that may get an error, 0..1.
        task_timeout: Seconds without the end of a task after which a version hangs.
        source: Folder or URI that is ingested in each reconciliation; empty = none.
        interval: Seconds between two reconciliations, about.
        idle: Seconds without work until Spark is ended.
        webhook: URL at which the MLflow server reaches this machine; empty = no webhook.
        listen: HOST:PORT at which the webhook listener listens.
        metrics: HOST:PORT at which Prometheus reads metrics; empty = none.
        status: File that the watch writes its status to, for `health`; empty = one for each lake in
            the cache folder.
        stop: Called several times a second; once true, the watch ends after the current commit.
        on_progress: Called after each micro-batch with version URI, images done, images to do.
        on_message: Called with lines such as "works again".
        on_fault: Called with a line for each fault, once.
        on_rollout: Called with the result of each roll-out.
        on_ingest: Called with the result of each ingest that changed something.
        on_health: Called with the state of the watch when it has changed, or after ten minutes.

    Raises:
        UserError: An option is out of its range, or the webhook or a port cannot be used.
    """
    parameters = dict(locals())
    limits = (max_images, max_bytes, max_minutes)
    rescoring.check_options(*limits, min_coverage, max_error_rate, task_timeout)
    require_at_least(0.1, interval=interval)
    require_at_least(0, idle=idle)
    for name, patience in PATIENCE.items():
        os.environ.setdefault(name, patience)

    def report_message(line: str) -> None:
        on_message(mask(line))

    def report_fault(line: str) -> None:
        on_fault(mask(line))

    file, lake = status_file(lake, status), location.locate_to_write(lake)
    state, troubles = WatchState(), Troubles(report_fault, report_message)
    report = StatusReport(file, lake, state, troubles, task_timeout=task_timeout)
    leases = Leases(lake, interval, report_message, report.is_late, state.waits_for)
    report.enter("starting")

    def stop_or_go_on() -> bool:
        report.progress()
        return stop()

    client = mlflow_tracking.connect()
    trigger = threading.Event()
    spark = LazySession("mlproject watch", lake=lake)
    with mlflow_tracking.run("watch", parameters, own=True) as run:
        service = Service(
            client,
            run,
            lake,
            spark,
            Policy(min_coverage, max_error_rate, retry),
            Options(pointers, limits, task_timeout, source, interval, idle),
            Callbacks(
                stop_or_go_on,
                on_progress,
                report_message,
                report_fault,
                on_rollout,
                on_ingest,
                on_health,
            ),
            Retries(interval),
            troubles,
            state,
            report,
            Metrics(state),
            leases,
        )
        try:
            with _metrics(service, metrics), _webhooks(service, webhook, listen, trigger):
                count = reconcile_until_stopped(service, trigger)
        finally:
            spark.end()
        while mlflow.active_run():
            with contextlib.suppress(MlflowException, OSError):  # the server may be away
                mlflow.end_run("KILLED")
    report.enter("stopped")
    return WatchResult(count)


@contextlib.contextmanager
def _metrics(service: Service, given: str) -> Iterator[None]:
    """Serves Prometheus while the block runs, if it is wanted."""
    if not given:
        yield
        return
    with served(service.metrics, given) as port:
        host = given.rpartition(":")[0]
        service.report.on_message(f"Serving metrics at http://{host}:{port}/metrics")
        yield


@contextlib.contextmanager
def _webhooks(
    service: Service, webhook: str, listen: str, trigger: threading.Event
) -> Iterator[None]:
    """Listens for webhooks while the block runs, and registers ours at the MLflow server."""
    if not webhook:
        yield
        return
    host, port = address("listen", listen)
    secret = webhook_registration.secret_of_environment()
    app = webhook_listener.receiver(secret, trigger.set)
    with webhook_listener.listening(app, host, port) as taken:
        problem = webhook_registration.register(service.client, webhook, secret)
        service.report.on_message(f"Listening for webhooks of {webhook} at {host}:{taken}")
        if problem:
            seconds = f"{service.options.interval:g} s"
            service.report.on_fault(f"{problem}. Reconciling every {seconds}")
        yield
