"""What a watch does when its server, or one of its aliases, has a fault; no Spark."""

import contextlib
import http.server
import threading
import time
from dataclasses import astuple
from pathlib import Path

import mlflow
import pytest

from mlproject.integrations.spark_session import LazySession
from mlproject.rollout import ledger
from mlproject.rollout.decision import Policy
from mlproject.service import loop
from mlproject.service.leases import Leases
from mlproject.service.metrics import Metrics
from mlproject.service.retries import Retries, Troubles
from mlproject.service.state import StatusReport, WatchState
from tests.support.lakes import add_images, add_predictions, image_id, register
from tests.support.local_servers import serving
from tests.support.rollouts import POINTER, point

PAGE = b"<!doctype html><title>Maintenance</title>"


class Faulty(http.server.BaseHTTPRequestHandler):
    """A server with the fault that `kind` names."""

    kind = ""

    def do_GET(self):
        if self.kind == "slow":
            time.sleep(3)
        if self.kind == "cut":
            self.connection.close()
            return
        self.send_response(503 if self.kind == "away" else 200)
        self.send_header("Content-Length", str(len(PAGE)))
        self.end_headers()
        self.wfile.write(PAGE)

    do_POST = do_GET  # noqa: N815 - http.server's name

    def log_message(self, *_):
        pass


@pytest.fixture
def faulty_server(monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    with serving(http.server.ThreadingHTTPServer(("127.0.0.1", 0), Faulty)) as url:
        yield url


class Client:
    """The client of a server that can be replaced by another, as if the fault were gone."""

    def __init__(self, now):
        self.now = now

    def __getattr__(self, name):
        return getattr(self.now, name)


class Watch:
    """A watch, and all that it reports."""

    def __init__(self, client, lake, *pointers, source="", interval=0.1):
        self.messages, self.faults, self.stopped = [], [], threading.Event()
        self.found = []
        state, troubles = WatchState(), Troubles(self.faults.append, self.messages.append)
        callbacks = loop.Callbacks(
            self.stopped.is_set,
            lambda *_: None,
            self.messages.append,
            self.faults.append,
            lambda _: None,
            lambda _: None,
            self.found.append,
        )
        with mlflow.start_run() as run:
            options = loop.Options(pointers, source=source, interval=interval)
            self.service = loop.Service(
                client,
                run,
                lake,
                LazySession("none"),
                Policy(),
                options,
                callbacks,
                Retries(interval),
                troubles,
                state,
                StatusReport(Path(f"{lake}.json"), lake, state, troubles, task_timeout=600),
                Metrics(state),
                Leases(lake, interval, self.messages.append),
            )

    def reconcile(self):
        return loop.reconcile(self.service)[0]

    @contextlib.contextmanager
    def going_on(self):
        """Reconciles in a thread while the block runs; gives the trigger."""
        trigger = threading.Event()
        arguments = (self.service, trigger)
        thread = threading.Thread(target=loop.reconcile_until_stopped, args=arguments)
        thread.start()
        try:
            yield trigger
        finally:
            self.stopped.set()
            thread.join(timeout=30)
        assert not thread.is_alive()


def wait(is_true):
    until = time.monotonic() + 60
    while not is_true():
        assert time.monotonic() < until
        time.sleep(0.05)


@pytest.mark.parametrize("kind", ["away", "page", "cut", "slow"])
def test_a_reconciliation_with_a_faulty_server_ends_soon_and_the_next_one_works(
    store, lake, faulty_server, monkeypatch, kind
):
    monkeypatch.setattr(Faulty, "kind", kind)
    add_images(lake, range(3))
    client = Client(mlflow.MlflowClient(faulty_server, faulty_server))
    watch = Watch(client, lake, POINTER)
    with watch.going_on() as trigger:
        wait(lambda: watch.faults)
        client.now = mlflow.MlflowClient()
        trigger.set()
        wait(lambda: "This reconciliation: works again" in watch.messages)
    assert 1 == sum(fault.startswith("This reconciliation: ") for fault in watch.faults)


def test_a_lost_alias_does_not_stop_the_others_and_is_reported_once(client, lake):
    add_images(lake, range(3))
    version = register(client, "photos")
    point(client, version)
    add_predictions(lake, version, map(image_id, range(3)))
    watch = Watch(client, lake, "models:/nobody@champion", POINTER)
    for _ in range(2):
        watch.reconcile()
    assert version.version == ledger.read(lake).serving(POINTER).version.version
    assert 1 == sum(fault.startswith("models:/nobody@champion: lost") for fault in watch.faults)


def test_a_source_that_is_away_delays_no_alias_and_is_reported_once(client, lake, tmp_path):
    add_images(lake, range(3))
    version = register(client, "photos")
    point(client, version)
    add_predictions(lake, version, map(image_id, range(3)))
    away = tmp_path / "away"
    watch = Watch(client, lake, POINTER, source=str(away))
    for _ in range(2):
        watch.reconcile()
    assert version.version == ledger.read(lake).serving(POINTER).version.version
    assert 1 == sum(fault.startswith(f"{away}: ") for fault in watch.faults)
    away.mkdir()
    watch.service.retries.clear()  # as time or a trigger does
    with mlflow.start_run():
        watch.reconcile()
    assert f"{away}: works again" in watch.messages


def test_the_lag_is_the_time_since_an_alias_fell_behind(client, lake, store):
    add_images(lake, range(3))
    versions = [register(client, "photos") for _ in range(2)]
    point(client, versions[0])
    watch = Watch(client, lake, POINTER)
    plans = watch.reconcile()  # it has no files
    assert [POINTER] == list(watch.service.state.behind)
    watch.service.state.behind[POINTER] -= 1000
    loop.log_health(watch.service, plans)
    found = watch.found[-1]
    assert (1, 1, 3) == (found.aliases, found.behind, found.backlog)
    assert 1000 <= found.lag_s < 1099  # of a busy machine
    metrics = client.get_run(watch.service.run.info.run_id).data.metrics
    assert (1, 3) == (metrics["reconciliations"], metrics["backlog"])
    assert 1000 <= metrics["lag_s"] < 1099  # of a busy machine
    for version in versions:
        add_predictions(lake, version, map(image_id, range(3)))
    watch.service.retries.clear()
    loop.log_health(watch.service, watch.reconcile())
    assert {} == watch.service.state.behind
    assert (1, 0, 0, 0.0) == astuple(watch.found[-1])[3:]


def test_a_failed_version_does_not_delay_the_one_that_the_alias_names_next(client, lake):
    add_images(lake, range(3))
    versions = [register(client, "photos") for _ in range(2)]
    point(client, versions[0])
    watch = Watch(client, lake, POINTER, interval=300)
    watch.reconcile()  # it has no files
    assert "cannot be read now" in watch.faults[0]
    point(client, versions[1])
    add_predictions(lake, versions[1], map(image_id, range(3)))
    watch.reconcile()
    assert versions[1].version == ledger.read(lake).serving(POINTER).version.version


class Hanging:
    """A client whose calls take too long."""

    def __getattr__(self, name):
        raise TimeoutError


def test_an_error_without_a_message_is_reported_by_its_name(store, lake):
    add_images(lake, range(3))
    watch = Watch(Hanging(), lake, POINTER)
    with watch.going_on():
        wait(lambda: watch.faults)
    assert ["This reconciliation: TimeoutError"] == watch.faults


def test_the_first_reconciliation_records_what_a_killed_one_did_not(client, lake):
    add_images(lake, range(3))
    version = register(client, "photos")
    point(client, version)
    add_predictions(lake, version, map(image_id, range(3)))
    Watch(client, lake, POINTER).reconcile()
    run_id = ledger.read(lake).serving(POINTER).run_id
    client.set_tag(run_id, "mlproject.state", "scoring")  # as it was before the switch
    client.set_model_version_tag("photos", "1", "mlproject.state", "scoring")
    watch = Watch(client, lake)
    with watch.going_on():
        wait(lambda: watch.found)
    assert "serving" == client.get_run(run_id).data.tags["mlproject.state"]
    assert "serving" == client.get_model_version("photos", "1").tags["mlproject.state"]
