import contextlib
import http.client
import signal
import socket
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor

import pytest

from mlproject.errors import UserError
from mlproject.service import webhook_listener
from tests.support.bells import EVENT, SECRET, Bell, at_end, raw, signed


@pytest.fixture
def bell():
    found = Bell(0)
    app = webhook_listener.receiver(SECRET, found.ring)
    with webhook_listener.listening(app, "127.0.0.1", 0) as found.port:
        yield found


def test_an_event_that_is_signed_as_mlflow_signs_rings(bell):
    assert (204, 1) == (bell.post(signed()), bell.rings)


def test_an_event_of_somebody_else_does_not_ring(bell):
    headers = signed()
    forged = [
        {},
        {**headers, "X-MLflow-Signature": ""},
        {**headers, "X-MLflow-Signature": "v1,"},
        {**headers, "X-MLflow-Signature": headers["X-MLflow-Signature"].replace("v1,", "v2,")},
        {**headers, "X-MLflow-Signature": headers["X-MLflow-Signature"].removeprefix("v1,")},
        {**headers, "X-MLflow-Signature": "v1,é"},
        {**headers, "X-MLflow-Delivery-Id": str(uuid.uuid4())},
        {**headers, "X-MLflow-Timestamp": str(int(time.time()) + 1)},
        {name: value for name, value in headers.items() if "Timestamp" not in name},
        signed(secret=SECRET.upper()),
        signed(b'{"another": "body"}'),
    ]
    assert [401] * len(forged) == [bell.post(one) for one in forged]
    assert 0 == bell.rings


def test_an_old_event_and_one_of_the_future_do_not_ring(bell):
    assert [401, 401] == [bell.post(signed(late_s=late_s)) for late_s in (310, -310)]
    assert 0 == bell.rings


def test_a_clock_that_is_some_minutes_off_does_no_harm(bell):
    assert [204, 204] == [bell.post(signed(late_s=late_s)) for late_s in (290, -290)]
    assert 2 == bell.rings


def test_a_timestamp_that_is_no_time_is_refused_even_when_signed(bell):
    for timestamp in ("", "now", "-1", "1e9", "nan", "9" * 13, "9" * 5000, f"+{time.time():.0f}"):
        assert (401, 0) == (bell.post(signed(timestamp=timestamp)), bell.rings), timestamp


def test_a_signed_text_cannot_be_cut_anew_so_that_its_time_comes_from_the_body(bell):
    # Whoever may name an alias could hide a time in it, and replay the event at that time.
    later = str(int(time.time()))
    headers = signed(f'{{"alias": ".{later}.rest'.encode(), late_s=3600)
    cut = f'{headers["X-MLflow-Delivery-Id"]}.{headers["X-MLflow-Timestamp"]}.{{"alias": "'
    moved = {**headers, "X-MLflow-Delivery-Id": cut, "X-MLflow-Timestamp": later}
    assert (401, 0) == (bell.post(moved, b"rest"), bell.rings)


def test_an_event_that_comes_again_is_thanked_for_and_does_not_ring_again(bell):
    headers = signed()
    assert [204, 204, 204] == [bell.post(headers) for _ in range(3)]
    assert 1 == bell.rings


def test_what_was_heard_is_remembered_as_long_as_its_time_is_good_and_no_longer():
    rings, now, begun, headers = [], [0.0], time.time(), signed(late_s=-290)
    app = webhook_listener.receiver(SECRET, lambda: rings.append(1), clock=lambda: now[0])
    answers = []
    with webhook_listener.listening(app, "127.0.0.1", 0) as port:
        for later_s in (0, 301, 580, 610):
            now[0] = begun + later_s
            answers.append(Bell(port).post(headers))
    assert ([204, 204, 204, 401], [1]) == (answers, rings)


def test_memory_of_what_was_heard_is_bounded(bell, monkeypatch):
    monkeypatch.setattr(webhook_listener, "SEEN", 3)
    five = [signed() for _ in range(5)]
    for headers in [*five, *five[2:]]:
        bell.post(headers)
    assert 5 == bell.rings  # the newest three are known
    bell.post(five[0])
    assert 6 == bell.rings


def test_an_event_rings_at_its_next_try_when_the_first_ring_failed(caplog):
    tries = []

    def ring():
        tries.append(1)
        if len(tries) == 1:
            raise RuntimeError("broken bell")

    with webhook_listener.listening(
        webhook_listener.receiver(SECRET, ring), "127.0.0.1", 0
    ) as port:
        headers = signed()
        assert [500, 204, 204] == [Bell(port).post(headers) for _ in range(3)]
    assert 2 == len(tries)
    assert "broken bell" in caplog.text  # a fault of ours is told, unlike those of strangers


def test_another_method_finds_nothing(bell):
    for method in ("GET", "PUT", "DELETE", "PATCH", "OPTIONS", "HEAD"):
        assert (404, 0) == (bell.post(signed(), method=method), bell.rings), method


def test_another_path_finds_nothing(bell):
    for path in ("/", "/mlflow/", "/mlflow/x", "/docs", "/redoc", "/openapi.json"):
        assert 404 == bell.post(signed(), path=path), path
        assert 404 == bell.post({}, b"", path=path, method="GET"), path
    assert 0 == bell.rings


def test_a_body_of_64_kib_is_heard_and_one_byte_more_is_not(bell):
    most = b"." * 65_536
    assert 204 == bell.send(raw({**signed(most), "Content-Length": len(most)}, most))
    more = most + b"."
    for path in ("/mlflow", "/elsewhere"):
        told = raw({**signed(more), "Content-Length": len(more)}, more, f"POST {path} HTTP/1.1")
        assert 413 == bell.send(told)
        chunk = b"%x\r\n%s" % (len(more), more)
        chunked = {**signed(more), "Transfer-Encoding": "chunked"}
        assert 413 == bell.send(raw(chunked, chunk, f"POST {path} HTTP/1.1"))
    assert 1 == bell.rings


def test_an_endless_body_is_cut_off(bell):
    with bell.open(raw({**signed(), "Transfer-Encoding": "chunked"})) as opened:
        block, sent = b"%x\r\n%s\r\n" % (4096, b"." * 4096), 0
        with contextlib.suppress(ConnectionError):
            while sent < 2**30:
                opened.sendall(block)
                sent += 4096
    assert sent < 2**24  # what the kernel's buffers hold, and not more
    assert 0 == bell.rings


def test_a_content_length_that_is_too_small_cuts_the_body_and_spoils_its_signature(bell):
    assert 401 == bell.send(raw({**signed(), "Content-Length": 5}, EVENT))
    both = {**signed(), "Content-Length": 5, "Transfer-Encoding": "chunked"}
    chunk = b"%x\r\n%s\r\n0\r\n\r\n" % (len(EVENT), EVENT)
    assert bell.send(raw(both, chunk)) in (204, 400)  # the chunks are the body, as HTTP has it
    assert bell.rings <= 1


def test_a_body_that_does_not_come_is_waited_for_some_seconds_only(bell):
    promised = raw({**signed(), "Content-Length": len(EVENT) + 1}, EVENT)
    huge = raw({**signed(), "Content-Length": 10**12}, EVENT)
    elsewhere = raw({"Content-Length": 9}, b"", "POST /elsewhere HTTP/1.1")
    begun = time.monotonic()
    with ThreadPoolExecutor(3) as pool:
        assert [408] * 3 == list(pool.map(bell.send, [promised, huge, elsewhere]))
    assert webhook_listener.BODY_S <= time.monotonic() - begun < webhook_listener.BODY_S + 3
    assert 0 == bell.rings


def test_events_come_through_while_others_never_finish_their_headers(bell):
    hanging = [bell.open(b"POST /mlflow HTTP/1.1\r\nHost: here\r\nX-") for _ in range(50)]
    begun = time.monotonic()
    assert 204 == bell.post(signed())
    assert time.monotonic() - begun < 1
    while time.monotonic() - begun < webhook_listener.CONNECTION_S - 1:
        for one in hanging:
            one.sendall(b"a")  # a byte now and then does not prolong it
        time.sleep(0.5)
    assert 204 == bell.post(signed())
    ended = [at_end(one) for one in hanging]
    assert ([True] * 50, 2) == (ended, bell.rings)
    assert time.monotonic() - begun < webhook_listener.CONNECTION_S + 3


def test_more_hanging_connections_than_are_kept_end_the_oldest(bell):
    count = 3 * webhook_listener.CONNECTIONS
    begun = time.monotonic()
    hanging = [bell.open(b"POST /mlflow HTTP/1.1\r\nHost: here\r\nX-") for _ in range(count)]
    assert [204] * 3 == [bell.post(signed()) for _ in range(3)]
    assert [True] * 200 == [at_end(one) for one in hanging[:200]]
    assert time.monotonic() - begun < webhook_listener.CONNECTION_S / 2
    for one in hanging[200:]:
        one.close()
    assert 3 == bell.rings


def test_a_thousand_events_as_fast_as_they_come_are_one_look():
    event, looks = threading.Event(), 0
    events = [raw({**signed(), "Content-Length": len(EVENT)}, EVENT) for _ in range(1000)]
    app = webhook_listener.receiver(SECRET, event.set)
    with webhook_listener.listening(app, "127.0.0.1", 0) as port, ThreadPoolExecutor(16) as pool:
        begun = time.monotonic()
        answers = set(pool.map(Bell(port).send, events))
        took = time.monotonic() - begun
    while event.wait(0.2):
        event.clear()
        looks += 1
    assert ({204}, 1) == (answers, looks)
    assert took < 30  # 1.5 to 3.5 s with two cores and the clients in this very process


def test_a_connection_serves_one_request(bell):
    connection = http.client.HTTPConnection("127.0.0.1", bell.port, timeout=20)
    connection.request("POST", "/mlflow", EVENT, signed())
    answer = connection.getresponse()
    assert ("close", b"") == (answer.getheader("Connection"), answer.read())


def test_rubbish_does_not_end_the_server(bell, caplog):
    rubbish = [b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"\r\n\r\n", b"GET", b"\0" * 9999]
    for one in rubbish:
        with bell.open(one) as opened:
            opened.shutdown(socket.SHUT_WR)
    bell.send(raw({"Content-Length": "many"}))
    bell.send(raw({"X-Long": "a" * 99_999}))
    assert (204, "") == (bell.post(signed()), caplog.text)


def test_a_port_that_is_taken_is_told_in_one_line():
    app = webhook_listener.receiver(SECRET, print)
    with webhook_listener.listening(app, "127.0.0.1", 0) as port:
        for host, number in (("127.0.0.1", port), ("127.0.0.1", 99_999), ("no.such.host.", 1)):
            with (
                pytest.raises(UserError, match=f"{host}:{number} ") as raised,
                webhook_listener.listening(app, host, number),
            ):
                pass
            assert "\n" not in str(raised.value)


def test_listening_ends_at_once_and_without_a_word_whoever_is_still_sending(caplog):
    app = webhook_listener.receiver(SECRET, print)
    with webhook_listener.listening(app, "127.0.0.1", 0) as port:
        amid_body = Bell(port).open(raw({**signed(), "Content-Length": 9}))
        amid_headers = Bell(port).open(b"POST /mlflow HTTP/1.1\r\n")
        time.sleep(0.2)
        begun = time.monotonic()
    assert time.monotonic() - begun < 1
    assert ([True, True], "") == ([at_end(amid_body), at_end(amid_headers)], caplog.text)
    with webhook_listener.listening(app, "127.0.0.1", port) as again:
        assert port == again


def test_signals_stay_with_whoever_listens():
    stops = (signal.SIGINT, signal.SIGTERM)
    before = [signal.getsignal(stop) for stop in stops]
    with webhook_listener.listening(webhook_listener.receiver(SECRET, print), "127.0.0.1", 0):
        assert before == [signal.getsignal(stop) for stop in stops]


def test_an_empty_secret_is_refused():
    with pytest.raises(UserError, match="needs a secret"):
        webhook_listener.receiver("", print)
