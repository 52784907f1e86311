"""Commands that write one lake in S3 at once, while the server fails: each a process of its own.

`make test-s3` runs these against versitygw too.
"""

import os
import signal
import time

import pytest

from mlproject.lake import queries, snapshots
from tests.conftest import output_of, photo, start_command
from tests.support import s3_servers
from tests.support.s3_proxy import FaultyServer
from tests.support.versions import register_colours

pytestmark = [pytest.mark.spark, pytest.mark.slow, pytest.mark.s3]

PHOTOS = 40


@pytest.fixture
def bucket(server, empty_bucket):
    """A bucket with photos."""
    contents = {f"daily/red/{n:02}.jpg": photo((200, 30, 30), n) for n in range(PHOTOS)}
    s3_servers.put(server, empty_bucket, **contents)
    return f"s3://{empty_bucket}"


def rows(lake, sql, *tables):
    return queries.query(lake, sql, list(tables)).to_pylist()


def require_whole(lake, versions, erased=()):
    """Each image once, with one prediction of each version, and nothing of the erased ones."""
    images = rows(lake, "SELECT path, image_id FROM images", "images")
    paths = {row["path"] for row in images}
    assert (PHOTOS - len(erased), len(images)) == (len(images), len(paths))
    assert not paths & set(erased)
    ids = sorted(row["image_id"] for row in images)
    for version in versions:
        sql = f"SELECT image_id, error FROM predictions WHERE model_id = '{version.model_id}'"
        made = rows(lake, sql, "predictions")
        assert ids == sorted(row["image_id"] for row in made)
        assert {None} == {row["error"] for row in made}


def test_nothing_is_lost_doubled_or_brought_back_though_the_server_fails_now_and_then(
    bucket, server, store, tmp_path
):
    lake, source = f"{bucket}/lake", f"{bucket}/daily"
    first, second = (register_colours("in-s3", reverse=reverse) for reverse in (False, True))
    secret = f"{source}/red/07.jpg"
    with FaultyServer(server, failing=0.03, seed=7).running() as faulty:

        def start(name, *words):
            there = {"AWS_ENDPOINT_URL": faulty.url}
            return start_command(name, *words, "--lake", lake, cwd=tmp_path, **there)

        ingest = ("ingest", "--source", source, "--max_files", "8", "--settle", "0")
        for process in [start(*ingest) for _ in range(2)]:
            output_of(process)
        batches = ("--batch_images", "5")
        killed = start("score", "--model", first.uri, *batches)
        processes = [
            start("score", "--model", first.uri, *batches),
            start("score", "--model", second.uri, *batches),
        ]
        until = time.monotonic() + 240
        while not (snapshots.newest(lake, "predictions") and rows(lake, "SELECT 1", "predictions")):
            assert time.monotonic() < until
            time.sleep(0.2)
        os.killpg(killed.pid, signal.SIGKILL)
        processes.append(start("erase", "--path", secret))
        for process in processes:
            output_of(process)
        for version in (first, second):  # what came too late for the others
            output_of(start("score", "--model", version.uri))
        assert faulty.faults > 3
    require_whole(lake, (first, second), [secret])


@pytest.mark.skipif("TEST_S3_SERVER" not in os.environ, reason="`make test-s3` runs it: minutes")
@pytest.mark.parametrize("kind", ["away", "hanging"])
def test_a_server_that_does_not_answer_for_a_while_loses_nothing(
    bucket, server, store, tmp_path, kind
):
    lake, source = f"{bucket}/lake", f"{bucket}/daily"
    version = register_colours("in-s3")
    with FaultyServer(server).running() as faulty:

        def start(name, *words):
            there = {"AWS_ENDPOINT_URL": faulty.url}
            return start_command(name, *words, "--lake", lake, cwd=tmp_path, **there)

        output_of(start("ingest", "--source", source, "--settle", "0"))
        scoring = start("score", "--model", version.uri, "--batch_images", "5")
        until = time.monotonic() + 240
        while not (snapshots.newest(lake, "predictions") and rows(lake, "SELECT 1", "predictions")):
            assert time.monotonic() < until
            time.sleep(0.2)
        if kind == "away":
            faulty.away.set()
        else:
            faulty.hanging = 1.0
        time.sleep(25)
        faulty.hanging = 0.0
        faulty.away.clear()
        output = output_of(scoring, 0, 1)
        assert "Traceback" not in output, output
        output_of(start("score", "--model", version.uri))
    require_whole(lake, [version])
