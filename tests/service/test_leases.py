"""Leases of two watches, each of a process of its own as far as the other one can see."""

import os
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from mlproject.lake import queries, snapshots
from mlproject.service import leases
from mlproject.service.leases import INTERVALS, Lease, Leases, is_free
from mlproject.service.processes import Process

SUBJECT = "models:/photos@champion"
AT = datetime(2026, 1, 1, tzinfo=UTC)
HELD = Lease(4, False, "other", Process("host", "space", 7), 30, AT)
RELEASED = Lease(4, True, "other", Process("host", "space", 7), 30, AT)


@pytest.mark.parametrize(
    ("lease", "unchanged_s", "own_interval_s", "ended", "free"),
    [
        (None, 0, 30, False, True),
        (RELEASED, 0, 30, False, True),
        (HELD, 0, 30, True, True),
        (HELD, 0, 30, False, False),
        (HELD, 89, 30, False, False),
        (HELD, 90, 30, False, True),
        (HELD, 90, 5, False, True),  # the holder renews it every 30 s
        (HELD, 89, 5, False, False),
        (HELD, 90, 60, False, False),
    ],
)
def test_a_lease_is_free_when_released_or_not_changed_for_three_intervals(
    lease, unchanged_s, own_interval_s, ended, free
):
    assert free == is_free(lease, unchanged_s, own_interval_s, ended=ended)


class Watches:
    """Two watches with a clock that the test moves, and processes that it lets end."""

    def __init__(self, lake, monkeypatch):
        self.now_s, self.ended, self.messages, self.late = 1000.0, False, [], False
        monkeypatch.setattr(leases.time, "monotonic", lambda: self.now_s)
        monkeypatch.setattr(leases, "has_ended", lambda process: self.ended)
        self.first, self.second = (
            Leases(lake, 30, self.messages.append, lambda: self.late) for _ in range(2)
        )


@pytest.fixture
def watches(lake, monkeypatch):
    return Watches(lake, monkeypatch)


def versions(lake):
    return snapshots.required(lake, "leases").version


def test_one_watch_works_on_a_subject_and_the_other_on_another_one(watches):
    with watches.first.held(SUBJECT) as first:
        for _ in range(2):
            with watches.second.held(SUBJECT) as second:
                assert (True, False) == (first, second)
        with watches.second.held("/photos") as other:
            assert other
    assert 1 == len(watches.messages)
    assert watches.messages[0].startswith(f"{SUBJECT}: another watch works on it (")
    with watches.second.held(SUBJECT) as second:
        assert second


def test_of_two_that_take_a_lease_at_once_one_gets_it(lake):
    results, ready = [], threading.Barrier(4)

    def take():
        mine = Leases(lake, 30, print)
        ready.wait()
        for _ in range(5):
            with mine.held(SUBJECT) as is_mine:
                if is_mine:
                    results.append(1)
                    assert 1 == len(results)  # nobody else is in this block
                    results.pop()

    threads = [threading.Thread(target=take) for _ in range(4)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(leases, "has_ended", lambda process: False)
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


def test_a_lease_that_does_not_change_is_taken_over_and_its_holder_notices(watches):
    with watches.first.held(SUBJECT):
        assert watches.first.may_go_on(SUBJECT)
        for elapsed_s, free in ((0, False), (89, False), (1, True)):
            watches.now_s += elapsed_s
            with watches.second.held(SUBJECT) as second:
                assert free == second
                assert free != watches.first.may_go_on(SUBJECT)
    # The release of the first one changes nothing: the second one had it, and has released it.
    with watches.first.held(SUBJECT) as first:
        assert first


def test_a_release_that_comes_late_does_not_free_the_lease_of_another_watch(watches):
    with watches.first.held(SUBJECT):
        watches.ended = True
        second = watches.second.held(SUBJECT)
        assert second.__enter__()
        watches.ended = False
    with watches.first.held(SUBJECT) as first:
        assert not first
    assert watches.second.may_go_on(SUBJECT)
    second.__exit__(None, None, None)


def test_what_was_seen_unchanged_before_counts(watches):
    with watches.first.held(SUBJECT):
        watches.second.observe([SUBJECT])
        watches.now_s += INTERVALS * 30
        with watches.second.held(SUBJECT) as second:
            assert second


def test_the_lease_of_a_process_that_has_ended_is_free(watches):
    with watches.first.held(SUBJECT):
        watches.ended = True
        with watches.second.held(SUBJECT) as second:
            assert second


def test_it_is_renewed_while_its_holder_works_unless_it_hangs(lake, monkeypatch):
    monkeypatch.setattr(leases, "SHORTEST_S", 0.05)
    late = threading.Event()
    mine = Leases(lake, 0.05, print, late.is_set)
    with mine.held(SUBJECT):
        began = versions(lake)
        wait_until(lambda: versions(lake) > began + 2)
        late.set()
        threading.Event().wait(0.5)
        hanging = versions(lake)
        threading.Event().wait(0.5)
        assert hanging == versions(lake)
        assert mine.may_go_on(SUBJECT)
    assert hanging + 1 == versions(lake)  # it was released


def wait_until(is_true):
    for _ in range(600):
        if is_true():
            return
        threading.Event().wait(0.05)
    raise AssertionError("it did not become true")


def test_renewals_and_releases_write_no_data_file_and_one_holder_writes_one_row(lake, watches):
    for _ in range(3):
        with watches.first.held(SUBJECT):
            pass
    assert 1 == queries.query(lake, "SELECT * FROM leases", ["leases"]).num_rows
    assert 6 == versions(lake)


def test_a_watch_that_could_not_release_its_own_lease_takes_it_again(watches):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(watches.first, "_release", lambda subject: None)
        with watches.first.held(SUBJECT):
            pass
    with watches.first.held(SUBJECT) as first:
        assert first


def test_the_log_of_leases_keeps_one_day(lake, watches):
    log, old = Path(lake, "leases", "_delta_log"), time.time() - 2 * 86_400

    def work(times):
        for _ in range(times):
            with watches.first.held(SUBJECT):
                pass
        return {int(file.stem) for file in log.glob("*.json")}

    work(10)
    for file in log.iterdir():
        os.utime(file, (old, old))
    assert min(work(10)) > 10
    with watches.second.held(SUBJECT) as second:
        assert second
