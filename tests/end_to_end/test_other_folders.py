"""`mlflow run` from another folder, and by a git URL: all is made where the person stands."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest

from tests.conftest import PROJECT, photos
from tests.support.fresh_processes import mlflow_run
from tests.support.lakes import frame

pytestmark = [pytest.mark.spark, pytest.mark.slow]

URL = "https://git.invalid/mlproject.git"


@pytest.fixture
def person(tmp_path) -> Path:
    """The folder in which the person stands: photos, and files with names of Python's modules."""
    folder = tmp_path / "a person's ü"
    photos(folder / "photos", 3)
    for name in ("numpy", "mlflow", "pipelines"):
        (folder / f"{name}.py").write_text("raise AssertionError(__file__)")
    return folder


def made(person: Path) -> list[str]:
    """The names of what commands made in the person's folder."""
    names = (path.name for path in person.iterdir() if path.suffix != ".py")
    return sorted(set(names) - {"photos"})


def run(person: Path, project: str, *words: str, **environment: str) -> None:
    mlflow_run(person, project, "--env-manager", "local", *words, **environment)


def git(folder: Path, *words: str) -> str:
    done = subprocess.run(
        ["git", *words], cwd=folder, stdout=subprocess.PIPE, text=True, check=True
    )
    return done.stdout


def new_files(folder: Path) -> list[str]:
    """What was made in a checkout since its commit, also what git ignores."""
    found = git(folder, "status", "--porcelain", "--ignored", "--untracked-files=all")
    return [line for line in found.splitlines() if "__pycache__" not in line]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory) -> Path:
    """A checkout of this project as it is."""
    folder = tmp_path_factory.mktemp("checkout")
    git(folder, "init", "--quiet")
    names = git(PROJECT, "ls-files", "--cached", "--others", "--exclude-standard").splitlines()
    for name in names:
        if (PROJECT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes((PROJECT / name).read_bytes())
    git(folder, "add", "--all")
    who = ("-c", "user.name=tests", "-c", "user.email=tests@example.org")
    git(folder, *who, "commit", "--quiet", "--message", "as it is")
    return folder


@pytest.fixture
def clones(tmp_path, checkout) -> Iterator[dict[str, str]]:
    """The environment in which git fetches `URL` from the checkout, and clones are in `tmp`."""
    (tmp_path / "tmp").mkdir()
    return {
        "TMPDIR": str(tmp_path / "tmp"),
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"url.file://{checkout}.insteadOf",
        "GIT_CONFIG_VALUE_0": URL,
    }


def runs(database: Path) -> list[tuple[str, str, str]]:
    client = mlflow.MlflowClient(f"sqlite:///{database}")
    return [
        (run.info.run_name, run.info.status, run.data.params["lake"])
        for run in client.search_runs(["0"])
    ]


@pytest.mark.thorough
def test_from_another_folder_all_is_made_there_and_the_run_is_mlflows_own(person, checkout):
    project = os.path.relpath(checkout, person)
    run(person, project, "-e", "ingest", "-P", "source=photos", "-P", "settle=0")
    assert 3 == len(frame(str(person / "lake"), "images"))
    assert ["lake", "mlflow.db"] == made(person)
    assert [("ingest", "FINISHED", "lake")] == runs(person / "mlflow.db")
    assert [] == new_files(checkout)


def test_by_a_git_url_nothing_is_made_in_the_clone(person, clones):
    environment = {**clones, "MLFLOW_TRACKING_URI": "sqlite:///runs/mlflow.db"}
    (person / "runs").mkdir()
    options = ("-P", "lake=tables/lake")
    words = ("-e", "ingest", "-P", "source=./photos", "-P", "settle=0", *options)
    run(person, URL, *words, **environment)
    run(person, URL, "-e", "report", "-P", "out=report.html", *options, **environment)
    assert 3 == len(frame(str(person / "tables" / "lake"), "images"))
    assert "tables/lake" in (person / "report.html").read_text(encoding="utf-8")
    # MLflow's own folder has the run's copy of the report.
    assert ["mlruns", "report.html", "runs", "tables"] == made(person)
    expected = [(name, "FINISHED", "tables/lake") for name in ("report", "ingest")]
    assert expected == runs(person / "runs" / "mlflow.db")
    found = [path.parent for path in Path(clones["TMPDIR"]).glob("*/MLproject")]
    assert 2 == len(found)
    assert [[], []] == [new_files(clone) for clone in found]
