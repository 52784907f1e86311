"""The Prometheus metrics of a watch, served over HTTP by the official client library.

Names follow Prometheus: a unit at the end, `_total` for counters.
Source: https://prometheus.io/docs/practices/naming
"""

import contextlib
from collections.abc import Callable, Iterator

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    ProcessCollector,
    start_http_server,
)

from mlproject.errors import UserError
from mlproject.ingestion.new_images import BatchProgress
from mlproject.scoring.scorer import ScoringResult
from mlproject.service.state import WatchState

PREFIX = "mlproject_watch"


class Metrics:
    """What a watch counts, in a registry of its own."""

    def __init__(self, state: WatchState) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.reconciliations = self._counter("reconciliations", "Reconciliations that ended")
        self.failures = self._counter("reconciliation_failures", "Reconciliations that failed")
        self.seconds = self._counter("reconciliation_seconds", "Seconds spent in reconciliations")
        self.succeeded = self._gauge(
            "last_reconciliation_timestamp_seconds",
            "When the last reconciliation succeeded, seconds since 1970",
        )
        for name, text, value in (
            ("lag_seconds", "Seconds since the first alias that is behind was moved", state.lag_s),
            ("backlog_images", "Images without a prediction", lambda: state.backlog),
            ("aliases", "Aliases and stages that are watched", lambda: state.aliases),
            ("aliases_behind", "Those whose version does not serve yet", lambda: len(state.behind)),
            ("consecutive_failures", "Failures since the last success", lambda: state.failures),
        ):
            self._gauge(name, text).set_function(value)
        self.images = self._counter("images_scored", "Images with a new prediction, errors too")
        self.errors = self._counter("image_errors", "Images scored that got an error code")
        self.speed = self._gauge("images_per_second", "Speed of the last scoring")
        self.files = self._counter("files_ingested", "Files with a new row in images")
        self.size = self._counter("ingested_bytes", "Bytes of these files")
        self.commits = Counter(
            f"{PREFIX}_commits",
            "Micro-batches committed",
            ["table"],
            registry=self.registry,
        )

    def committed(self, images: int) -> None:
        """Counts a micro-batch of predictions."""
        self.commits.labels("predictions").inc()
        self.images.inc(images)

    def scored(self, result: ScoringResult) -> None:
        """Counts what is known at the end of a scoring."""
        self.errors.inc(result.errors)
        if result.images:
            self.speed.set(result.images / result.seconds)

    def ingesting(self) -> Callable[[BatchProgress], None]:
        """A function that counts the micro-batches of one ingest."""
        last = BatchProgress(0, 0, 0, 0)

        def count(done: BatchProgress) -> None:
            nonlocal last
            self.commits.labels("images").inc()
            if done.files < last.files:  # another writer came first: it has begun anew
                last = BatchProgress(0, 0, 0, 0)
            self.files.inc(done.files - last.files)
            self.size.inc(done.size_bytes - last.size_bytes)
            last = done

        return count

    def _counter(self, name: str, text: str) -> Counter:
        return Counter(f"{PREFIX}_{name}", text, registry=self.registry)

    def _gauge(self, name: str, text: str) -> Gauge:
        return Gauge(f"{PREFIX}_{name}", text, registry=self.registry)


def address(option: str, given: str) -> tuple[str, int]:
    """Host and port of an option.

    Raises:
        UserError: It is not HOST:PORT.
    """
    host, colon, port = given.rpartition(":")
    if not colon or not port.isdecimal() or int(port) > 65_535:
        raise UserError(f"{option}={given!r} is not HOST:PORT, for example 0.0.0.0:8321")
    return host.removeprefix("[").removesuffix("]"), int(port)


@contextlib.contextmanager
def served(metrics: Metrics, given: str) -> Iterator[int]:
    """Serves metrics at HOST:PORT while the block runs; gives the port, 0 picks a free one.

    Raises:
        UserError: It is not HOST:PORT, or one cannot listen there.
    """
    host, port = address("metrics", given)
    try:
        server, thread = start_http_server(port, host or "0.0.0.0", metrics.registry)  # noqa: S104
    except OSError as error:
        raise UserError(
            f"Cannot serve metrics at {given} ({error.strerror or error}). Choose another port: "
            "-P metrics=HOST:PORT"
        ) from error
    try:
        yield int(server.server_port)
    finally:
        server.shutdown()
        server.server_close()
        thread.join(timeout=5)
