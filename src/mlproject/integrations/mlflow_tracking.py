"""The MLflow tracking server and registry in use, and one run a verb."""

import logging
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import mlflow
from mlflow import MlflowClient
from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from mlflow.utils.uri import is_local_uri

from mlproject.errors import UserError, first_line

DEFAULT_URI = "sqlite:///mlflow.db"

# MLflow's own defaults let one call to a dead server wait for minutes.
# Source: mlflow.environment_variables, 7 retries of 120 s.
PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3", "MLFLOW_HTTP_REQUEST_TIMEOUT": "30"}

# A name of MLflow's making, such as rogue-shrew-565; a person's own --run-name is kept.
# Source: mlflow.utils.name_utils.
MADE_UP_NAME = re.compile(r"[a-z]+-[a-z]+-\d+")


def connect() -> MlflowClient:
    """A client of the server that MLFLOW_TRACKING_URI names; by default ./mlflow.db.

    Raises:
        UserError: What it would use is MLflow's old file store, which holds no registry.
    """
    for name, value in PATIENCE.items():
        os.environ.setdefault(name, value)
    for name in ("alembic", "mlflow.store.db.utils"):
        logging.getLogger(name).setLevel(logging.WARNING)
    named = os.environ.get("MLFLOW_TRACKING_URI")
    left = sorted(Path("mlruns").glob("*/meta.yaml"))
    if not named and left:
        raise UserError(
            f"A file store of an older MLflow lies in ./mlruns ({left[0]}). Move it away, or keep "
            f"it unused and say where to track: export MLFLOW_TRACKING_URI={DEFAULT_URI}"
        )
    if named and is_local_uri(named):
        raise UserError(
            f"MLFLOW_TRACKING_URI={named!r} is a file store, which holds no model registry. "
            f"Use a database or a server: export MLFLOW_TRACKING_URI={DEFAULT_URI}"
        )
    # Absolute, for processes that begin in other folders.
    uri = named or DEFAULT_URI
    relative = re.fullmatch(r"sqlite:///(?!/)(.+)", uri)
    os.environ["MLFLOW_TRACKING_URI"] = (
        f"sqlite:///{Path(relative[1]).resolve()}" if relative else uri
    )
    # No version of ours holds a pickle: refuse to run the code that one may hide.
    os.environ["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] = "false"
    mlflow.set_tracking_uri(os.environ["MLFLOW_TRACKING_URI"])
    client = MlflowClient()
    try:
        client.search_experiments(max_results=1)
    except MlflowException as error:
        raise UserError(
            f"MLFLOW_TRACKING_URI={os.environ['MLFLOW_TRACKING_URI']!r} does not answer "
            f"({first_line(error)}). Start the server, or name another one"
        ) from error
    return client


@contextmanager
def run(verb: str, parameters: Mapping[str, object], *, own: bool = False) -> Iterator[Run]:
    """The MLflow run of one verb: that of `mlflow run` where it started us, else a new one.

    Inside another run, such as that of `main`, it is that run's child.

    Args:
        verb: Name of the run and value of the tag `mlproject.verb`.
        parameters: Logged as `mlflow run` writes them, but for those that it has logged already,
            and for functions.
        own: A child of the run of `mlflow run`, whose status says KILLED for good: in its own run
            `mlflow run` overwrites that by the exit status. Source: MLflow 3.17,
            mlflow.projects._maybe_set_run_terminated, which compares the status with numbers.
    """
    if own and os.environ.get("MLFLOW_RUN_ID"):
        with run(verb, {}), run(verb, parameters) as child:
            yield child
        return
    with mlflow.start_run(nested=mlflow.active_run() is not None) as opened:
        mlflow.set_tag("mlproject.verb", verb)
        if MADE_UP_NAME.fullmatch(opened.info.run_name or ""):
            mlflow.set_tag("mlflow.runName", verb)
        known = opened.data.params
        logged = {key: value for key, value in parameters.items() if not callable(value)}
        mlflow.log_params({key: _text(v) for key, v in logged.items() if key not in known})
        try:
            yield opened
        except KeyboardInterrupt:  # a person or the machine stopped it: no failure of ours
            mlflow.end_run("KILLED")
            raise


def _text(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return ",".join(value) if isinstance(value, list | tuple) else str(value)
