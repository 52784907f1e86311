"""MLflow's own server on a database, as a process; clients that give up soon."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time

import mlflow
import requests

OPEN = {
    "MLFLOW_WEBHOOK_ALLOWED_SCHEMES": "http,https",
    "MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS": "true",
    "MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY": "a2V5IG9mIDMyIGJ5dGVzIGZvciB0ZXN0cyBvbmx5ISE=",
    "MLFLOW_WEBHOOK_REQUEST_MAX_RETRIES": "1",  # 3 take seven seconds
    "MLFLOW_WEBHOOK_CACHE_TTL": "0",  # else a test sends to the receiver of the test before
}


def database(folder):
    return f"sqlite:///{folder}/mlflow.db"


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as free:
        return free.getsockname()[1]


@contextlib.contextmanager
def starting(folder, workers=1, port=0, options=(), **environment):
    """A server that may not answer yet: its process, URL and log.

    `options` name its database and artifacts; they are SQLite and a folder otherwise.
    """
    port = port or free_port()
    log, artifacts = folder / "server.log", folder / "artifacts"
    files = ("--backend-store-uri", database(folder), "--artifacts-destination", str(artifacts))
    place = ("--host", "127.0.0.1", "--port", str(port), "--workers", str(workers))
    # Without MLflow's own: those of whoever runs the tests, and ten processes for jobs.
    ours = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")}
    quick = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "mlflow", "server", *(options or files), *place],
            env={**ours, **quick, **environment},
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield process, f"http://127.0.0.1:{port}", log
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # its workers are processes of their own
        process.wait()


def client(process, url, log, workers=1):
    """A client of a server, once all of it answers."""
    until = time.monotonic() + 120
    while True:
        with contextlib.suppress(requests.RequestException):
            begun = log.read_text().count("Application startup complete")
            if begun >= workers and requests.get(f"{url}/health", timeout=5).ok:
                return mlflow.MlflowClient(url, url)
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < until, log.read_text()
        time.sleep(0.1)
