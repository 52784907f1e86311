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

DEFAULT_URI = "sqlite:///mlflow.db"

# Retries, and seconds of one request. By default a call to a dead server takes minutes.
# Source: mlflow.environment_variables, 7 retries of 120 s.
TIMEOUTS = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3", "MLFLOW_HTTP_REQUEST_TIMEOUT": "30"}

# A run name that MLflow generated, such as rogue-shrew-565; the user's --run-name is kept.
# Source: mlflow.utils.name_utils.
GENERATED_NAME = re.compile(r"[a-z]+-[a-z]+-\d+")


class Client(MlflowClient):  # type: ignore[misc]  # MLflow has no types here
    """A client whose tags may be set by several processes at once.

    MLflow's database store reads a tag, then adds or replaces it: of two processes that add the
    same tag, one gets an error of the database. Its second attempt finds the tag and replaces it.
    Source: MLflow 3.17, set_model_version_tag and set_tag of the SQLAlchemy stores.
    """

    def set_tag(self, *args: Any, **kwargs: Any) -> None:
        """As MlflowClient.set_tag, with a second attempt."""
        try:
            super().set_tag(*args, **kwargs)
        except MlflowException:
            super().set_tag(*args, **kwargs)

    def set_model_version_tag(self, *args: Any, **kwargs: Any) -> None:
        """As MlflowClient.set_model_version_tag, with a second attempt."""
        try:
            super().set_model_version_tag(*args, **kwargs)
        except MlflowException:
            super().set_model_version_tag(*args, **kwargs)


def connect() -> MlflowClient:
    """A client of the server that MLFLOW_TRACKING_URI names; by default ./mlflow.db.

    Raises:
        UserError: The server does not answer, or it is MLflow's file store, which has no registry.
    """
    for name, value in TIMEOUTS.items():
        os.environ.setdefault(name, value)
    for name in ("alembic", "mlflow.store.db.utils"):
        logging.getLogger(name).setLevel(logging.WARNING)
    named = os.environ.get("MLFLOW_TRACKING_URI")
    left = sorted(Path("mlruns").glob("*/meta.yaml"))
    if not named and left:
        raise UserError(
            f"./mlruns contains the file store of an older MLflow ({str(left[0])!r}). Move it "
            f"away, or name the store to use: export MLFLOW_TRACKING_URI={DEFAULT_URI}"
        )
    if named and is_local_uri(named):
        raise UserError(
            f"MLFLOW_TRACKING_URI={named!r} is a file store, which has no model registry. "
            f"Use a database or a server: export MLFLOW_TRACKING_URI={DEFAULT_URI}"
        )
    uri = named or DEFAULT_URI
    if relative := re.fullmatch(r"sqlite:///(?!/)(.+)", uri):
        uri = f"sqlite:///{Path(relative[1]).resolve()}"  # for processes in other folders
    os.environ["MLFLOW_TRACKING_URI"] = uri
    # Our versions contain no pickle: refuse to execute the code in one.
    os.environ["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] = "false"
    mlflow.set_tracking_uri(uri)
    try:
        with _one_creator(uri):
            client = Client()
        client.search_experiments(max_results=1)
    except MlflowException as error:
        raise UserError(
            f"MLFLOW_TRACKING_URI={uri!r} does not answer ({first_line(error)}). Start the "
            "server, or set MLFLOW_TRACKING_URI to another one"
        ) from error
    return client


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
    return ",".join(value) if isinstance(value, list | tuple) else str(value)
