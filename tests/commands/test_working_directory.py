"""The folder of relative paths: that in which `mlflow run` was called, for every entry point."""

import os
import shlex
from pathlib import Path

import pytest
import yaml
from mlflow import projects

from mlproject.commands import console
from mlproject.errors import UserError
from tests.conftest import PROJECT, output_of, start_command

ENTRY_POINTS = yaml.safe_load((PROJECT / "MLproject").read_text(encoding="utf-8"))["entry_points"]


@pytest.mark.parametrize("name", ENTRY_POINTS)
def test_mlflow_names_the_folder_in_which_it_was_called(name, tmp_path, monkeypatch):
    here = tmp_path / "it's {ours} ü"
    here.mkdir()
    monkeypatch.chdir(here)
    entry = projects.utils.load_project(PROJECT).get_entry_point(name)
    required = {key: "x" for key, one in entry.parameters.items() if one.default is None}
    command = entry.compute_command(required, str(tmp_path))
    assert f"MLPROJECT_WORKING_DIRECTORY={here}" == shlex.split(command)[0]


@pytest.fixture
def two_folders(tmp_path, monkeypatch) -> tuple[Path, Path]:
    """The project's folder, in which this process is, and the person's; both are absolute."""
    folders = (tmp_path / "project", tmp_path / "person")
    for folder in folders:
        folder.mkdir()
    monkeypatch.chdir(folders[0])
    monkeypatch.setenv(console.WORKING_DIRECTORY, str(folders[1]))
    monkeypatch.setenv("PYTHONPATH", f"src{os.pathsep}/elsewhere")
    monkeypatch.setenv("PYTHONSAFEPATH", "")
    return folders


def test_the_process_enters_the_persons_folder_and_finds_its_packages_from_there(two_folders):
    project, person = two_folders
    console.enter_working_directory()
    assert person == Path.cwd()
    assert f"{project}/src{os.pathsep}/elsewhere" == os.environ["PYTHONPATH"]
    assert "1" == os.environ["PYTHONSAFEPATH"]
    assert console.WORKING_DIRECTORY not in os.environ  # processes that we start stay where we are


def test_without_the_variable_nothing_changes(two_folders, monkeypatch):
    monkeypatch.delenv(console.WORKING_DIRECTORY)
    console.enter_working_directory()
    assert two_folders[0] == Path.cwd()
    assert f"src{os.pathsep}/elsewhere" == os.environ["PYTHONPATH"]
    assert "" == os.environ["PYTHONSAFEPATH"]


@pytest.mark.parametrize("name", ["nowhere", "file"])
def test_a_folder_that_cannot_be_entered_is_an_error(two_folders, monkeypatch, name):
    Path("file").touch()
    monkeypatch.setenv(console.WORKING_DIRECTORY, name)
    with pytest.raises(UserError, match=f"'{name}' cannot be entered .*working_directory=FOLDER"):
        console.enter_working_directory()


def test_that_error_is_one_line_of_a_launcher_and_exit_code_2(tmp_path):
    started = start_command("maintain", cwd=tmp_path, MLPROJECT_WORKING_DIRECTORY="nowhere")
    output = output_of(started, 2)
    assert output.startswith("mlproject maintain: The working directory 'nowhere' cannot")
    assert 1 == len(output.splitlines())


@pytest.mark.parametrize("named", [{}, {console.WORKING_DIRECTORY: "person"}])
def test_a_launcher_reads_relative_paths_there_and_else_in_the_current_folder(tmp_path, named):
    (tmp_path / "person").mkdir()
    output = output_of(start_command("maintain", "--lake", "a lake", cwd=tmp_path, **named), 2)
    assert f"'{tmp_path.joinpath(*named.values(), 'a lake')}/" in output
