"""A wheel of the project holds everything: the commands, the templates and the model files."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from mlproject import cli
from mlproject.versions import engines
from tests.conftest import PROJECT

PARTS = ("models", "src", "pyproject.toml", "setup.py", "requirements.txt", "README.md", "LICENSE")
FIND = """
import json, mlproject
from mlproject.versions import engines
print(json.dumps([mlproject.__file__, str(engines.model_file())]))
"""


def pip(*words: str, cwd: Path) -> None:
    command = [sys.executable, "-m", "pip", *words, "--no-deps", "--no-index", "--quiet"]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert 0 == done.returncode, done.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Built from a copy, so that this checkout stays without build folders."""
    copy = tmp_path_factory.mktemp("copy")
    for part in PARTS:
        place = PROJECT / part
        ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
        if place.is_dir():
            shutil.copytree(place, copy / part, ignore=ignored)
        else:
            shutil.copy(place, copy / part)
    pip("wheel", ".", "--no-build-isolation", "--wheel-dir", "wheels", cwd=copy)
    (built,) = (copy / "wheels").glob("mlproject-*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("installed")
    pip("install", str(wheel), "--target", str(folder), cwd=folder)
    return folder


def run(installed: Path, *words: str) -> str:
    """Runs Python where only the installation, and no checkout, can be imported."""
    done = subprocess.run(
        [sys.executable, *words],
        cwd=installed,
        env={**os.environ, "PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert 0 == done.returncode, done.stderr
    return done.stdout


def test_an_installed_wheel_has_every_command(installed):
    output = run(installed, "-m", "mlproject.cli", "--help")
    for name in cli.COMMANDS:
        assert f"\n  {name} " in output
    assert "mlproject" in [path.name for path in (installed / "bin").iterdir()]
    assert "Usage: mlproject train" in run(
        installed, str(installed / "bin/mlproject"), "train", "--help"
    )


def test_an_installed_wheel_completes_words_in_a_shell(installed, monkeypatch):
    monkeypatch.setenv("_MLPROJECT_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", "mlproject maintain --table er")
    monkeypatch.setenv("COMP_CWORD", "3")
    assert "plain,erased\n" == run(installed, str(installed / "bin/mlproject"))


def test_an_installed_wheel_finds_its_own_model_file(installed):
    package, file = (Path(name) for name in json.loads(run(installed, "-c", FIND)))
    assert installed / "mlproject" == package.parent
    assert installed / "mlproject" / "models" == file.parent
    assert (PROJECT / "models" / file.name).read_text() == file.read_text()


def test_a_checkout_finds_its_own_model_file():
    assert PROJECT / "models" / "mobilenet_v2.py" == engines.model_file()


def test_a_wheel_holds_the_files_of_the_packages_and_nothing_else(wheel):
    sources = {f"mlproject/models/{path.name}" for path in (PROJECT / "models").glob("*.py")}
    for pattern in ("*.py", "*.j2"):
        found = (PROJECT / "src").rglob(pattern)
        sources |= {str(path.relative_to(PROJECT / "src")) for path in found}
    with zipfile.ZipFile(wheel) as archive:
        assert sources == {name for name in archive.namelist() if ".dist-info/" not in name}
