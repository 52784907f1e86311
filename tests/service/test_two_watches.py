"""Two watches of one lake: little is done twice, and one takes over what the other leaves."""

import contextlib
import json
import os
import re
import signal
import urllib.request
from dataclasses import replace

import mlflow
import pytest
from click.testing import CliRunner

from mlproject import cli
from mlproject.lake import queries
from mlproject.rollout import ledger
from mlproject.versions import registry
from tests.conftest import photos, start_command
from tests.support.rollouts import require_sound
from tests.support.versions import register_devices
from tests.support.watches import Watch, wait

pytestmark = [pytest.mark.spark, pytest.mark.slow]

POINTER = "models:/photos@champion"
INTERVAL = ("--interval", "1")  # so leases are renewed every 5 s, and taken over after 15 s


@pytest.fixture
def lake(tmp_path):
    return str(tmp_path / "lake")


@pytest.fixture
def client(store):
    return mlflow.MlflowClient()


@contextlib.contextmanager
def two_watches(lake, tmp_path):
    words = ("--pointers", POINTER, "--lake", lake, "--source", str(tmp_path / "photos"))
    with contextlib.ExitStack() as stack:
        found = []
        for name in ("one", "two"):
            own = ("--status", f"{tmp_path}/{name}.json", "--log", "json")
            own += ("--metrics", "127.0.0.1:0")
            begun = start_command("watch", *words, *INTERVAL, *own, cwd=tmp_path)
            found.append(stack.enter_context(Watch(begun)))
        yield found


def output(watches):
    return lambda: "\n\n".join(watch.output() for watch in watches)


def serving(lake):
    """Version and images of the last row of the serving version."""
    now = ledger.read(lake).serving(POINTER)
    return now and (replace(now.version, pointer=None), now.covered.predicted)


def holder(lake, subject):
    """The process that has taken the lease of a subject last."""
    rows = queries.query(lake, "SELECT * FROM leases", ["leases"]).to_pylist()
    mine = [row for row in rows if row["subject"] == subject]
    return max(mine, key=lambda row: row["number"])["pid"] if mine else None


def is_ready(tmp_path, name):
    """Whether a watch is ready, and has no backlog."""
    words = ["health", "--status", f"{tmp_path}/{name}.json"]
    done = CliRunner().invoke(cli.main, words, prog_name="mlproject")
    return done.exit_code == 0 and json.loads(done.stdout)["backlog"] == 0


def images_scored(watch):
    """What Prometheus reads of a watch."""
    [line] = (one["message"] for one in watch.objects() if "metrics at" in one["message"])
    with urllib.request.urlopen(line.split()[-1], timeout=10) as response:  # noqa: S310 - http
        text = response.read().decode()
    return float(re.search(r"^mlproject_watch_images_scored_total (\S+)", text, re.M)[1])


def split(watches, pid):
    """The watch with a process number, and the other one."""
    [mine] = (watch for watch in watches if watch.process.pid == pid)
    [other] = (watch for watch in watches if watch.process.pid != pid)
    return mine, other


def total(watches, kind, fact):
    """The sum of a fact in the lines of a kind, those that have another one."""
    lines = [line for watch in watches for line in watch.objects() if kind in line]
    return sum(line[fact] for line in lines)


def test_little_is_done_twice_and_a_killed_watch_is_replaced(client, lake, tmp_path):
    first, second = (register_devices("photos", pause_s=pause_s) for pause_s in (0.1, 0.5))
    registry.move(client, first, alias="champion")
    photos(tmp_path / "photos", 10, "red")
    with two_watches(lake, tmp_path) as watches:
        wait(lambda: serving(lake) == (first, 10), output(watches))
        for number, label in enumerate(("green", "blue"), start=2):
            photos(tmp_path / "photos", 10, label)
            wait(lambda n=number: serving(lake) == (first, 10 * n), output(watches))
        for name in ("one", "two"):
            wait(lambda n=name: is_ready(tmp_path, n), output(watches))
        # A row is committed before its line is printed.
        wait(lambda: total(watches, "discarded", "images") >= 30, output(watches))
        assert 30 == total(watches, "discarded", "images"), output(watches)()
        assert 0 == total(watches, "discarded", "discarded"), output(watches)()
        assert 30 == total(watches, "rows", "rows"), output(watches)()

        registry.move(client, second, alias="champion")
        wait(lambda: ledger.read(lake).scoring(POINTER), output(watches))
        worker, other = split(watches, holder(lake, POINTER))
        other.until(f"{POINTER}: another watch works on it (")
        os.killpg(worker.process.pid, signal.SIGKILL)
        worker.process.wait()
        wait(lambda: serving(lake) == (second, 30), other.output)
        require_sound(lake)
        other.stop()
    assert 1 == sum(f"{POINTER}: another watch works on it (" in line for line in other.lines)


@pytest.mark.thorough
def test_a_watch_that_hangs_loses_its_work_to_the_other_and_goes_on_later(client, lake, tmp_path):
    registry.move(client, register_devices("photos", pause_s=1), alias="champion")
    photos(tmp_path / "photos", 12, "red")
    with two_watches(lake, tmp_path) as watches:
        waits = f"{POINTER}: another watch works on it ("
        wait(lambda: any(waits in line for one in watches for line in one.lines), output(watches))
        worker, other = split(watches, holder(lake, POINTER))
        worker.process.send_signal(signal.SIGSTOP)
        wait(lambda: holder(lake, POINTER) == other.process.pid, output(watches))
        worker.process.send_signal(signal.SIGCONT)
        wait(lambda: serving(lake)[1] == 12, output(watches))
        require_sound(lake)
        for name in ("one", "two"):
            wait(lambda n=name: is_ready(tmp_path, n), output(watches))
        assert 12 <= sum(map(images_scored, watches)) <= 24
        for watch in watches:
            watch.stop()
    assert not any("Traceback" in line for watch in watches for line in watch.lines)
