"""What a watch does when its server, or one of its pointers, is ill; no Spark."""

import http.server
import threading
import time

import mlflow
import pytest

from mlproject.rollout import ledger
from pipelines import watch as verb
from tests.support.lakes import add_images, image_id, register, say
from tests.support.rollouts import POINTER, point

PAGE = b"<!doctype html><title>Maintenance</title>"


class Ill(http.server.BaseHTTPRequestHandler):
    """A server that is ill in the way that `kind` says."""

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
def ill_server(monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Ill) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def watching(client, lake, *options, stopped=None):
    words = ["--lake", lake, "--interval", "0.1", *options]
    arguments = verb.parser().parse_args(words)
    with mlflow.start_run() as run:
        return verb._Watch(arguments, client, lake, run, stopped or threading.Event())


@pytest.mark.parametrize("kind", ["away", "page", "cut", "slow"])
def test_a_look_at_an_ill_server_ends_soon_and_the_next_one_finds_it_well(
    store, lake, ill_server, monkeypatch, capsys, kind
):
    monkeypatch.setattr(Ill, "kind", kind)
    add_images(lake, range(3))
    stopped, bell = threading.Event(), threading.Event()
    ill = mlflow.MlflowClient(ill_server, ill_server)
    watch = watching(ill, lake, "--pointers", POINTER, stopped=stopped)
    looks = threading.Thread(target=watch.until_stopped, args=(bell,))
    looks.start()
    while not watch.failed:
        assert looks.is_alive()
        time.sleep(0.05)
    watch.client = mlflow.MlflowClient()  # as if the server were well again
    bell.set()
    while watch.failed:
        assert looks.is_alive()
        time.sleep(0.05)
    stopped.set()
    looks.join(timeout=30)
    said = capsys.readouterr()
    assert 1 == said.err.count("This look failed: ")
    assert "The looks: well again" in said.out


def test_a_lost_pointer_does_not_stop_the_others_and_is_told_once(client, lake, capsys):
    add_images(lake, range(3))
    version = register(client, "photos")
    point(client, version)
    say(lake, version, map(image_id, range(3)))
    watch = watching(client, lake, "--pointers", f"models:/nobody@champion,{POINTER}")
    for _ in range(2):
        watch.look()
    assert version.version == ledger.read(lake).serving(POINTER).version.version
    assert 1 == capsys.readouterr().err.count("models:/nobody@champion: lost")


def test_a_source_that_is_away_holds_no_pointer_up_and_is_told_once(client, lake, tmp_path, capsys):
    add_images(lake, range(3))
    version = register(client, "photos")
    point(client, version)
    say(lake, version, map(image_id, range(3)))
    away = tmp_path / "away"
    watch = watching(client, lake, "--pointers", POINTER, "--source", str(away))
    for _ in range(2):
        watch.look()
    assert version.version == ledger.read(lake).serving(POINTER).version.version
    assert 1 == capsys.readouterr().err.count(f"{away}: ")
    away.mkdir()
    watch.tries.clear()  # as time or an event does
    with mlflow.start_run():
        watch.look()
    assert f"{away}: well again" in capsys.readouterr().out


def test_the_lag_is_the_time_since_readers_fell_behind(client, lake, capsys, store):
    add_images(lake, range(3))
    versions = [register(client, "photos") for _ in range(2)]
    point(client, versions[0])
    watch = watching(client, lake, "--pointers", POINTER)
    watch._plans()
    assert [POINTER] == list(watch.behind)
    for version in versions:
        say(lake, version, map(image_id, range(3)))
    watch._tell_health(watch.look())
    assert {} == watch.behind
    assert "1 pointers, 0 behind, backlog 0 images, lag 0 s" in capsys.readouterr().out


def test_tries_come_later_and_later_up_to_ten_minutes(client, lake):
    watch = watching(client, lake, "--interval", "30")
    assert [30, 60, 120, 600] == [watch._later(failed) for failed in (0, 1, 2, 9)]
    assert 600 == watch._later(100_000)


def test_a_failed_version_does_not_delay_the_one_that_is_pointed_at_next(client, lake, capsys):
    add_images(lake, range(3))
    versions = [register(client, "photos") for _ in range(2)]
    point(client, versions[0])
    watch = watching(client, lake, "--pointers", POINTER)
    watch.look()  # it has no files
    assert "cannot be read now" in capsys.readouterr().err
    [tried] = watch.tries
    assert versions[0].version == tried[1].version
    point(client, versions[1])
    say(lake, versions[1], map(image_id, range(3)))
    watch.look()
    assert versions[1].version == ledger.read(lake).serving(POINTER).version.version


def test_an_error_without_words_is_told_by_its_name(client, lake, capsys, monkeypatch):
    stopped = threading.Event()
    watch = watching(client, lake, stopped=stopped)

    def look():
        raise TimeoutError

    monkeypatch.setattr(watch, "look", look)
    monkeypatch.setattr(watch, "_wait", lambda bell: stopped.set())
    watch.until_stopped(threading.Event())
    assert "This look failed: TimeoutError" in capsys.readouterr().err


def test_the_first_look_tells_what_a_killed_one_left_untold(client, lake):
    add_images(lake, range(3))
    version = register(client, "photos")
    point(client, version)
    say(lake, version, map(image_id, range(3)))
    watching(client, lake, "--pointers", POINTER).look()
    run_id = ledger.read(lake).serving(POINTER).run_id
    client.set_tag(run_id, "mlproject.state", "scoring")  # as it was before the switch
    client.set_model_version_tag("photos", "1", "mlproject.state", "scoring")
    stopped = threading.Event()
    watch = watching(client, lake, stopped=stopped)
    threading.Timer(0.5, stopped.set).start()
    watch.until_stopped(threading.Event())
    assert "serving" == client.get_run(run_id).data.tags["mlproject.state"]
    assert "serving" == client.get_model_version("photos", "1").tags["mlproject.state"]
