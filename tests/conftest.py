"""Fixtures: one Spark session a process, an MLflow store a module, lakes and drawn photos."""

import io
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

pytest.register_assert_rewrite(
    "tests.support.predicting",
    "tests.support.commands",
    "tests.support.rollouts",
    "tests.support.version_checks",
    "tests.support.training_checks",
)

PROJECT = Path(__file__).parents[1]
SHARED = PROJECT.parent / "shared" / "data"
# `make test-thorough`: all tests, and what may fail once in many times is tried more often.
THOROUGH = bool(os.environ.get("TEST_THOROUGH"))

# Spark's workers and the commands that tests start import the package from here, as MLproject does.
os.environ["PYTHONPATH"] = f"{PROJECT / 'src'}{os.pathsep}{PROJECT}"
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
# Settings of the tests' Spark sessions, but of those of tests/support/fresh_processes.py, which
# have a user's. A test's queries are of a few rows and each is new to the JVM: most of its time
# would go into compiling them. Two sessions share two cores: one slot each, of one worker. Not in a
# folder of configuration, with which a JVM cannot use archived classes.
os.environ["SPARK_MASTER"] = "local[1]"
os.environ["PYSPARK_SUBMIT_ARGS"] = (
    "--conf spark.sql.codegen.wholeStage=false --conf spark.sql.codegen.factoryMode=NO_CODEGEN "
    "pyspark-shell"
)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves out thorough tests, unless asked for. Files with slow tests come first.

    So two processes end at about the same time.
    """
    if not THOROUGH:
        left = [item for item in items if item.get_closest_marker("thorough")]
        config.hook.pytest_deselected(items=left)
        items[:] = [item for item in items if item not in left]
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(scope="session")
def spark():
    from mlproject.integrations.spark_session import session

    with session("mlproject tests") as opened:
        yield opened


@pytest.fixture
def lake(tmp_path: Path) -> str:
    from mlproject.lake import location

    return location.locate_to_write(str(tmp_path / "lake"))


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The SQLite file of a new MLflow store, whose tables take MLflow seconds to make."""
    import mlflow

    file = tmp_path_factory.mktemp("database") / "mlflow.db"
    mlflow.MlflowClient(f"sqlite:///{file}").search_experiments()
    return file


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, empty_database: Path) -> Iterator[Path]:
    """A folder with an MLflow store of its own, which this process and its children use."""
    import mlflow

    folder = tmp_path_factory.mktemp("store")
    shutil.copy(empty_database, folder / "mlflow.db")
    uri = f"sqlite:///{folder}/mlflow.db"
    before = mlflow.get_tracking_uri()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", uri)
        # MLflow sets it below, and a command with another store would find no such experiment.
        patch.setenv("MLFLOW_EXPERIMENT_ID", "")
        patch.delenv("MLFLOW_EXPERIMENT_ID")
        mlflow.set_tracking_uri(uri)
        mlflow.create_experiment("tests", artifact_location=(folder / "artifacts").as_uri())
        patch.setenv("MLFLOW_EXPERIMENT_NAME", "tests")
        mlflow.set_experiment("tests")
        yield folder
        mlflow.set_tracking_uri(before)


@pytest.fixture
def client(store: Path):
    """The registry of the store; models that the test makes go after it."""
    import mlflow

    found = mlflow.MlflowClient()
    before = {model.name for model in found.search_registered_models()}
    yield found
    for name in {model.name for model in found.search_registered_models()} - before:
        found.delete_registered_model(name)


@pytest.fixture
def versions(client):
    """Three versions of a model, without files."""
    from tests.support.lakes import register

    return [register(client, "photos") for _ in range(3)]


@pytest.fixture
def shared() -> Path:
    if not SHARED.is_dir():
        pytest.skip("needs the real photos and weights of ../shared/data, which are not here")
    return SHARED


def photo(colour: tuple[int, int, int], seed: int = 0, size: tuple[int, int] = (48, 40)) -> bytes:
    """A small JPEG that is mostly of one colour, and different for each seed."""
    dice = random.Random(seed)
    image = Image.new("RGB", size, colour)
    for _ in range(20):
        image.putpixel(
            (dice.randrange(size[0]), dice.randrange(size[1])), (dice.randrange(256),) * 3
        )
    out = io.BytesIO()
    image.save(out, "JPEG", quality=95)
    return out.getvalue()


def photos(folder: Path, count: int, label: str = "red", seed: int = 0) -> Path:
    """`count` photos in `folder/label`, which have settled; gives back `folder`."""
    colours = {"red": (200, 30, 30), "green": (30, 200, 30), "blue": (30, 30, 200)}
    (folder / label).mkdir(parents=True, exist_ok=True)
    for number in range(count):
        file = folder / label / f"{number:03}.jpg"
        file.write_bytes(photo(colours[label], seed * 10_000 + number))
        os.utime(file, (time.time() - 60,) * 2)
    return folder


def start_command(
    name: str, *arguments: str, cwd: Path, stderr: int = subprocess.STDOUT, **environment: str
) -> subprocess.Popen[str]:
    """Starts a command as MLproject does, in a process group of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", f"pipelines.{name}", *arguments],
        cwd=cwd,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=stderr,
        text=True,
        start_new_session=True,
    )


def output_of(process: subprocess.Popen[str], *codes: int) -> str:
    """What a process prints until it ends; the test fails with it unless its status is in `codes`.

    Without any the status is 0.
    """
    output, _ = process.communicate(timeout=300)
    assert process.returncode in (codes or (0,)), output
    return output
