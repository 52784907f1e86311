"""Webhooks of a real MLflow server: registered, delivered, and refused with what it needs."""

import base64
import contextlib
import os
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import mlflow
import pytest
from mlflow.exceptions import MlflowException

from mlproject.errors import UserError
from mlproject.service import webhook_listener, webhook_registration
from tests.support import mlflow_servers
from tests.support.webhook_events import SECRET

ALIAS = ["model_version_alias.created", "model_version_alias.deleted"]


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    """Three servers, by name, and their folders; they begin at once, as each takes a while."""
    without_key = {key: value for key, value in mlflow_servers.OPEN.items() if "KEY" not in key}
    kinds = {"open": mlflow_servers.OPEN, "strict": {}, "keyless": {"workers": 2, **without_key}}
    folders = {name: tmp_path_factory.mktemp(name) for name in kinds}
    with pytest.MonkeyPatch.context() as patch, contextlib.ExitStack() as stack:
        patch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        started = {
            name: stack.enter_context(mlflow_servers.starting(folders[name], **settings))
            for name, settings in kinds.items()
        }
        yield started, folders


@pytest.fixture(scope="module")
def servers(begun):
    """Clients of a server that takes our webhooks and of one as delivered; their folders."""
    clients = {name: mlflow_servers.client(*begun[0][name]) for name in ("open", "strict")}
    clients["open"].create_registered_model("photos")
    for _ in range(2):
        clients["open"].create_model_version("photos", "s3://nobody/reads/it")
    return clients, begun[1]


@pytest.fixture
def client(servers):
    """The open server, without webhooks."""
    yield servers[0]["open"]
    execute(servers, "UPDATE webhooks SET deleted_timestamp = 1")


@pytest.fixture
def keyless(begun):
    """A server of two workers without a key."""
    return mlflow_servers.client(*begun[0]["keyless"], workers=2)


@pytest.fixture
def strict(servers):
    return servers[0]["strict"]


def execute(servers, statement, rows=((),)):
    """Changes the open server's database behind its back."""
    with contextlib.closing(sqlite3.connect(servers[1]["open"] / "mlflow.db")) as database:
        database.executemany(statement, rows)
        database.commit()


@contextlib.contextmanager
def listening(secret=SECRET):
    """A receiver's URL, and what it sets."""
    event = threading.Event()
    app = webhook_listener.receiver(secret, event.set)
    with webhook_listener.listening(app, "127.0.0.1", 0) as port:
        yield f"http://127.0.0.1:{port}/mlflow", event


def refusal(*arguments):
    with pytest.raises(UserError) as raised:
        webhook_registration.register(*arguments)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def facts(hooks):
    return [
        (hook.name, hook.url, sorted(map(str, hook.events)), str(hook.status)) for hook in hooks
    ]


def test_an_alias_that_is_set_moved_or_deleted_triggers(client):
    with listening() as (url, event):
        assert "" == webhook_registration.register(client, url, SECRET)
        assert event.is_set()  # the test event rang
        moves = [
            lambda: client.set_registered_model_alias("photos", "champion", "1"),
            lambda: client.set_registered_model_alias("photos", "champion", "2"),
            lambda: client.delete_registered_model_alias("photos", "champion"),
        ]
        for move in moves:
            event.clear()
            move()
            assert event.wait(10)


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_a_stage_that_is_moved_does_not_trigger_and_has_no_event(client):
    with listening() as (url, event):
        webhook_registration.register(client, url, SECRET)
        event.clear()
        client.transition_model_version_stage("photos", "1", "Production")
        assert not event.wait(1)
    with pytest.raises(MlflowException, match="Invalid entity or action"):
        client.create_webhook("stages", url, ["model_version_stage.created"])


def test_a_webhook_with_another_secret_does_not_trigger_and_is_reported(client):
    with listening() as (url, event):
        problem = webhook_registration.register(client, url, SECRET + "!")
        client.set_registered_model_alias("photos", "champion", "1")
        assert not event.wait(1)
    assert "HTTP 401 " in problem
    assert SECRET not in problem
    assert "\n" not in problem


def test_registering_again_changes_the_one_webhook_there_is(client):
    with listening() as (url, _):
        webhook_registration.register(client, url, "a secret of yesterday")
        [first] = client.list_webhooks()
        client.update_webhook(first.webhook_id, status="DISABLED", events=ALIAS[:1])
        assert "" == webhook_registration.register(client, url, SECRET)
        assert [first.webhook_id] == ids(client)
        assert [(webhook_registration.NAME, url, ALIAS, "ACTIVE")] == facts(client.list_webhooks())
    with listening() as (moved, event):
        webhook_registration.register(client, moved, SECRET)
        assert ([first.webhook_id], True) == (ids(client), event.is_set())
        assert [(webhook_registration.NAME, moved, ALIAS, "ACTIVE")] == facts(
            client.list_webhooks()
        )


def test_webhooks_of_others_stay_and_doubles_of_ours_go(client):
    client.create_webhook("a-stranger", "http://127.0.0.1:1/", ["model_version.created"])
    with listening() as (url, _):
        for _ in range(2):  # as two watchers that begin at once
            client.create_webhook(webhook_registration.NAME, url, ALIAS, secret=SECRET)
        webhook_registration.register(client, url, SECRET)
        assert {"a-stranger": 1, webhook_registration.NAME: 1} == names(client)


def ids(client):
    return [hook.webhook_id for hook in client.list_webhooks()]


def names(client):
    found = [hook.name for hook in client.list_webhooks()]
    return {name: found.count(name) for name in found}


def test_a_webhook_that_a_person_made_for_this_url_is_taken_over(client):
    with listening() as (url, event):
        by_hand = client.create_webhook("by-hand", url, ["model_version.created"])
        problem = webhook_registration.register(client, url, SECRET)
        assert ([by_hand.webhook_id], "", True) == (ids(client), problem, event.is_set())
        assert [(webhook_registration.NAME, url, ALIAS, "ACTIVE")] == facts(client.list_webhooks())


def test_it_is_found_among_more_webhooks_than_a_page_holds(client, servers):
    others = [(f"other-{number}",) for number in range(200)]
    with listening() as (url, _):
        webhook_registration.register(client, url, SECRET)
        [first] = ids(client)
        columns = "webhook_id, name, url, status, creation_timestamp, last_updated_timestamp"
        newer = "'http://127.0.0.1:1/', 'ACTIVE', 9999999999999, 9999999999999"  # listed before
        execute(servers, f"INSERT INTO webhooks ({columns}) VALUES (?1, ?1, {newer})", others)
        event = "(webhook_id, entity, action) VALUES (?, 'model_version', 'created')"
        execute(servers, f"INSERT INTO webhook_events {event}", others)
        assert 100 == len(client.list_webhooks())
        webhook_registration.register(client, url, SECRET)
        every = client.list_webhooks(1000)
        ours = [hook.webhook_id for hook in every if hook.name == webhook_registration.NAME]
        assert ([first], 201) == (ours, len(every))


def test_a_url_where_nothing_listens_is_reported(client):
    with listening() as (url, event):
        wrong = webhook_registration.register(client, url.replace("/mlflow", "/"), SECRET)
    assert "(HTTP 404)" in wrong
    assert "/mlflow" in wrong
    gone = webhook_registration.register(client, url, SECRET)
    assert "Connection refused" in gone
    assert not event.is_set()
    assert "\n" not in gone


def test_the_error_names_the_settings_for_http_and_private_addresses(strict):
    assert "MLFLOW_WEBHOOK_ALLOWED_SCHEMES" in refusal(strict, "http://127.0.0.1/mlflow", SECRET)
    private = refusal(strict, "https://127.0.0.1/mlflow", SECRET)
    assert "MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS=true" in private
    assert "'ftp'" in refusal(strict, "ftp://127.0.0.1/mlflow", SECRET)


def test_a_server_that_lost_its_key_triggers_nothing_is_reported_and_can_be_repaired(
    client, servers
):
    uri = mlflow_servers.database(servers[1]["open"])
    with listening() as (url, event), pytest.MonkeyPatch.context() as patch:
        webhook_registration.register(client, url, SECRET)
        patch.setenv("MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS", "true")
        # As the server's process before wrote it, with a key that it had made up for itself.
        before = mlflow.MlflowClient(uri, uri)
        before.create_webhook("of-before", "https://127.0.0.1/", ALIAS, secret=SECRET)
        event.clear()
        client.set_registered_model_alias("photos", "champion", "1")
        assert not event.wait(1)
        lost = refusal(client, url, SECRET)
        assert "MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY" in lost
        execute(servers, lost.split(": ")[-1])
        webhook_registration.register(client, url, SECRET)
        event.clear()
        client.set_registered_model_alias("photos", "champion", "1")
        assert event.wait(10)


def test_workers_without_a_key_in_common_are_reported_when_the_webhook_is_registered(keyless):
    problems = set()
    with listening() as (url, _):
        for _ in range(20):  # the kernel may give all connections of a try to one worker
            with contextlib.suppress(UserError):  # as when another worker is asked to update it
                problems.add(webhook_registration.register(keyless, url, SECRET))
            if problems - {""}:
                break
    [problem] = problems - {""}
    assert "different keys" in problem
    assert "\n" not in problem


def test_a_database_without_a_server_is_refused_and_left_as_it_is(client, servers):
    uri = mlflow_servers.database(servers[1]["open"])
    message = refusal(mlflow.MlflowClient(uri, uri), "https://example.org/mlflow", SECRET)
    assert [True, True] == [part in message for part in (uri, "mlflow server")]
    assert [] == list(client.list_webhooks())


def test_the_command_in_the_message_makes_a_key():
    made = subprocess.run(
        ["sh", "-c", f"{webhook_registration.KEY}; echo $MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY"],
        env={"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert 32 == len(base64.urlsafe_b64decode(made.stdout))


def test_the_secret_is_that_of_the_environment(monkeypatch):
    monkeypatch.setenv("MLPROJECT_WEBHOOK_SECRET", f" {SECRET}\n")
    assert SECRET == webhook_registration.secret_of_environment()


@pytest.mark.parametrize("secret", ["", "  ", "short"])
def test_no_secret_or_one_that_can_be_guessed_is_an_error_with_how_to_make_one(monkeypatch, secret):
    monkeypatch.setenv("MLPROJECT_WEBHOOK_SECRET", secret)
    with pytest.raises(UserError, match=r"MLPROJECT_WEBHOOK_SECRET is .*token_hex\(32\)") as raised:
        webhook_registration.secret_of_environment()
    assert "short" not in str(raised.value).replace("shorter", "")
