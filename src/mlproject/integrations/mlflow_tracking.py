"""The MLflow tracking server and registry, and one run for each command."""

import fcntl
import logging
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import mlflow
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from mlflow.utils.uri import is_local_uri

from mlproject.errors import UserError, first_line
from mlproject.masking import is_ambiguous, mask
from mlproject.storage.local_files import local_path

TRACKING, REGISTRY = "MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI"
CREDENTIALS = (
    "Write user and password into the URI, or set MLFLOW_TRACKING_USERNAME and "
    "MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"
)
DEFAULT_URI = "sqlite:///mlflow.db"

# Retries, and seconds of one request. By default a call to a dead server takes minutes.
# Source: mlflow.environment_variables, 7 retries of 120 s.
TIMEOUTS = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3", "MLFLOW_HTTP_REQUEST_TIMEOUT": "30"}

# A run name that MLflow generated, such as rogue-shrew-565; the user's --run-name is kept.
# Source: mlflow.utils.name_utils.
GENERATED_NAME = re.compile(r"[a-z]+-[a-z]+-\d+")


def local_files() -> frozenset[str]:
    """The files and folders in which MLflow's stores lie, if they are on this machine."""
    found = set[str]()
    for uri in (mlflow.get_tracking_uri(), mlflow.get_registry_uri()):
        if uri.startswith("sqlite:///"):
            path = os.path.realpath(uri.removeprefix("sqlite:///"))
            found |= {f"{path}{ending}" for ending in ("", "-wal", "-shm", "-journal")}
        elif is_local_uri(uri):
            found.add(os.path.realpath(local_path(uri)))
    return frozenset(found)


class Client(MlflowClient):  # type: ignore[misc]  # MLflow has no types here
    """A client whose tags may be set by several processes at once, and contain no secret.

    MLflow's database store reads a tag, then adds or replaces it: of two processes that add the
    same tag, one gets an error of the database. Its second attempt finds the tag and replaces it.
    Source: MLflow 3.17, set_model_version_tag and set_tag of the SQLAlchemy stores.
    """

    def set_tag(self, run_id: str, key: str, value: str, **kwargs: Any) -> None:
        """As MlflowClient.set_tag, with a second attempt."""
        value = mask(str(value))
        try:
            super().set_tag(run_id, key, value, **kwargs)
        except MlflowException:
            super().set_tag(run_id, key, value, **kwargs)

    def set_model_version_tag(self, name: str, version: str, key: str, value: str) -> None:
        """As MlflowClient.set_model_version_tag, with a second attempt."""
        value = mask(str(value))
        try:
            super().set_model_version_tag(name, version, key, value)
        except MlflowException:
            super().set_model_version_tag(name, version, key, value)


def connect() -> MlflowClient:
    """A client of the servers that MLFLOW_TRACKING_URI and MLFLOW_REGISTRY_URI name.

    The default is ./mlflow.db, and for the registry the tracking server.

    Raises:
        UserError: One does not answer, or is MLflow's file store, which has no registry; or the
            password in a URI is not percent-encoded.
    """
    for name, value in TIMEOUTS.items():
        os.environ.setdefault(name, value)
    for name in ("alembic", "mlflow.store.db.utils"):
        logging.getLogger(name).setLevel(logging.WARNING)
    left = sorted(Path("mlruns").glob("*/meta.yaml"))
    if not os.environ.get(TRACKING) and left:
        raise UserError(
            f"./mlruns contains the file store of an older MLflow ({str(left[0])!r}). Move it "
            f"away, or name the store to use: export {TRACKING}={DEFAULT_URI}"
        )
    tracking = _named_uri(TRACKING) or _absolute(DEFAULT_URI)
    registry = _named_uri(REGISTRY) or tracking
    # Our versions contain no pickle: refuse to execute the code in one.
    os.environ["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] = "false"
    os.environ[TRACKING] = tracking  # for processes in other folders
    mlflow.set_tracking_uri(tracking)
    # MLflow would keep one of a notebook's earlier cell.
    mlflow.set_registry_uri(registry if registry != tracking else None)
    client: MlflowClient | None = None
    with _answering(TRACKING, tracking):
        client = Client()
        client.search_experiments(max_results=1)
    if registry != tracking:
        with _answering(REGISTRY, registry):
            client.search_registered_models(max_results=1)
    return client


@contextmanager
def _answering(name: str, uri: str) -> Iterator[None]:
    """Raises errors of MLflow, and of the drivers of databases, as errors of the named URI."""
    try:
        if re.match(r"(?:postgresql|mysql|mssql)\b", uri):  # MLflow would retry for 100 s
            from mlflow.store.db.utils import create_sqlalchemy_engine  # it takes 0.5 s to import

            create_sqlalchemy_engine(uri).connect().close()
        with _one_creator(uri):
            yield
    except Exception as error:
        reason = first_line(error)
        advice = f"does not answer ({reason}). Start the server, or set {name} to another one"
        if re.search(r"\b40[13]\b|password authentication failed", reason):
            advice = f"refuses access ({reason}). {CREDENTIALS}"
        raise UserError(f"{name}={uri!r} {advice}") from error


def _named_uri(name: str) -> str:
    """The URI in an environment variable, absolute; empty = it is not set."""
    uri = os.environ.get(name, "")
    if uri and is_local_uri(uri):
        raise UserError(
            f"{name}={uri!r} is a file store, which has no model registry. "
            f"Use a database or a server: export {name}={DEFAULT_URI}"
        )
    if is_ambiguous(uri):
        raise UserError(
            f"The password in {name} has characters that end it there. Write them as in URLs: "
            "%40 for @, %2F for /, %3F for ?, %23 for #"
        )
    return _absolute(uri)


def _absolute(uri: str) -> str:
    relative = re.fullmatch(r"sqlite:///(?!/)(.+)", uri)
    return f"sqlite:///{Path(relative[1]).resolve()}" if relative else uri


@contextmanager
def run(command: str, parameters: Mapping[str, object], *, own: bool = False) -> Iterator[Run]:
    """The MLflow run of one command: the run of `mlflow run` if that started it, else a new one.

    Inside another run, such as that of `main`, it is a child of that run.

    Args:
        command: Name of the run and value of the tag `mlproject.verb`.
        parameters: Logged as `mlflow run` writes them, except for functions and for those that are
            logged already.
        own: Whether to use a child of the run of `mlflow run`, which keeps the status KILLED: in
            its own run `mlflow run` replaces it by the exit status. Source: MLflow 3.17,
            mlflow.projects._maybe_set_run_terminated, which compares the status with numbers.
    """
    if own and os.environ.get("MLFLOW_RUN_ID"):
        with run(command, {}), run(command, parameters) as child:
            yield child
        return
    with mlflow.start_run(nested=mlflow.active_run() is not None) as opened:
        mlflow.set_tag("mlproject.verb", command)
        if GENERATED_NAME.fullmatch(opened.info.run_name or ""):
            mlflow.set_tag("mlflow.runName", command)
        known = opened.data.params
        logged = {key: value for key, value in parameters.items() if not callable(value)}
        mlflow.log_params({key: _text(v) for key, v in logged.items() if key not in known})
        try:
            yield opened
        except KeyboardInterrupt:  # the user or the machine stopped it: not a failure
            mlflow.end_run("KILLED")
            raise


@contextmanager
def _one_creator(uri: str) -> Iterator[None]:
    """Lets one process at a time create the tables of a SQLite store.

    MLflow creates them for the first client, and fails when two processes do so at once.
    """
    path = re.match(r"sqlite:///([^?]+)", uri)
    if path is None or not Path(path[1]).parent.is_dir():
        yield
        return
    folder = os.open(Path(path[1]).parent, os.O_RDONLY)
    try:
        with suppress(OSError):  # a file system without locks, where one process creates them
            fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def _text(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return mask(",".join(value) if isinstance(value, list | tuple) else str(value))
