"""`erase` before it opens a lake: what it refuses and what it reports."""

import os
import re
import subprocess
import sys
from pathlib import Path

import mlflow
import pytest
from mlflow.exceptions import MlflowException

from mlproject.erasure import requests, selection
from mlproject.errors import UserError
from tests.conftest import start_command
from tests.support.commands import run_command


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ({}, "exactly one of .* none"),
        ({"path": "/a", "prefix": "/b"}, "exactly one of .* path, prefix"),
        ({"path": "a.jpg"}, "'a.jpg' is not absolute"),
        ({"prefix": "photos"}, "'photos' is not absolute"),
        ({"prefix": "/"}, "'/' would select all"),
        ({"prefix": "s3://"}, "'s3://' would select all"),
        ({"prefix": "file:///"}, "'file:///' would select all"),
        ({"image_id": "f" * 64 + ", " + "f" * 63}, "not a sha256"),
        ({"file": "nowhere.txt"}, "cannot be read"),
        ({"file": "binary.txt"}, "cannot be read"),
        ({"file": "empty.txt"}, "is empty"),
        ({"file": "dashes.txt"}, "Line 2 of .*'- /b.jpg'"),
    ],
)
def test_a_selection_that_is_not_clear_is_refused_in_one_line(
    words, expected, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    Path("binary.txt").write_bytes(b"\xff\xd8")
    Path("empty.txt").write_text("\n \n")
    Path("dashes.txt").write_text("/a.jpg\n- /b.jpg\n")
    with pytest.raises(UserError, match=expected) as caught:
        selection.selection(**words)
    assert 1 == len(str(caught.value).splitlines())


def test_what_mlflow_run_has_logged_itself_is_reported(store, tmp_path, monkeypatch):
    with mlflow.start_run() as run:
        mlflow.log_param("path", "/photos/1.jpg")
    monkeypatch.setenv("MLFLOW_RUN_ID", run.info.run_id)
    lake = str(tmp_path / "nowhere")
    result = run_command("erase", "--path", "/photos/1.jpg", "--lake", lake, code=2)
    assert "There is no lake" in result.stderr
    assert not (tmp_path / "nowhere").exists()
    [words] = re.findall("MLFLOW_TRACKING_URI=.*", result.stdout.splitlines()[0])
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    subprocess.run(words, shell=True, cwd=tmp_path, check=True)  # noqa: S602 - as it is pasted
    with pytest.raises(MlflowException, match="not found"):
        mlflow.get_run(run.info.run_id)


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("http://mlflow:5000", "where the server's database is: mlflow gc .* http://mlflow:5000"),
        ("http://me:secret@mlflow", 'mlflow gc .* "$MLFLOW_TRACKING_URI"'),
        ("postgresql://me:secret@host/db", '&& mlflow gc .* "$MLFLOW_TRACKING_URI"$'),
    ],
)
def test_a_run_on_a_server_is_removed_where_its_database_is_and_no_password_is_printed(
    uri, expected, monkeypatch
):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    words = requests.removal_command("1")
    assert re.search(expected.replace("$M", r"\$M"), words)
    assert "secret" not in words


def test_a_users_error_is_one_line_and_exit_code_2(store, tmp_path):
    process = start_command("erase", "--path", "/a", "--image_id", "f" * 64, cwd=tmp_path)
    output, _ = process.communicate(timeout=300)
    assert (2, 1) == (process.returncode, len(output.splitlines()))
    assert output.startswith("mlproject erase: Name exactly one of")
