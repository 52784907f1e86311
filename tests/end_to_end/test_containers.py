"""Commands as processes in surroundings that lack what a person's machine has."""

import sys

import mlflow
import pytest

from mlproject.storage import local_files
from tests.conftest import output_of, photos, start_command
from tests.support.containers import UID, require_namespaces, run_in_container
from tests.support.fresh_processes import run_words
from tests.support.lakes import frame
from tests.support.versions import register_colours

pytestmark = pytest.mark.spark


def test_a_user_without_a_name_and_a_home_works_on_a_read_only_system(tmp_path):
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    given = {"MLFLOW_TRACKING_URI": uri, "MLFLOW_EXPERIMENT_NAME": "container"}
    photos(tmp_path / "source", 3)
    (tmp_path / "register.py").write_text(
        "from tests.support.versions import register_colours\nprint(register_colours('c').uri)\n"
    )

    def output(command, *words, **more):
        return run_in_container(tmp_path, "-m", f"pipelines.{command}", *words, **given, **more)

    printed = output("ingest", "--source", "source", "--settle", "0")
    assert "Fetching Delta's jars once" in printed
    assert "Ingested 3 of 3" in printed
    # An image has them in a folder that can only be read.
    (tmp_path / "new").mkdir()
    cache = str(local_files.cache_folder().parent)
    printed = output("report", XDG_CACHE_HOME=cache, TMPDIR=str(tmp_path / "new"))
    assert "Fetching" not in printed
    # MLflow itself wants both.
    run_in_container(tmp_path, "register.py", HOME=str(tmp_path), LOGNAME=UID, **given)
    assert "3 images scored" in output("score", "--model", "models:/c/1", HOME="/")  # Docker's
    output("promote", "--model", "models:/c/1", "--alias", "champion", "--approve", "true")
    output("rescore", "--pointers", "models:/c@champion")
    assert "3 images, 1 versions" in output("report")
    assert ["red"] * 3 == list(frame(str(tmp_path / "lake"), "predictions").label)
    client = mlflow.MlflowClient(uri)
    runs = client.search_runs([client.get_experiment_by_name("container").experiment_id])
    named = {run.info.run_name for run in runs if run.data.tags.get("mlflow.user") == UID}
    assert {"ingest", "score", "promote", "rescore", "report"} <= named


def test_names_with_umlauts_are_found_in_the_locale_c(store, tmp_path, monkeypatch):
    monkeypatch.setenv("LC_ALL", "C")
    version = register_colours("blüten")
    photos(tmp_path / "bilder ü" / "röte", 3)

    def output(command, *words):
        return output_of(start_command(command, *words, cwd=tmp_path))

    lake = ("--lake", "see ü")
    assert "Ingested 3 of 3" in output("ingest", *lake, "--source", "bilder ü", "--settle", "0")
    assert "3 images scored" in output("score", *lake, "--model", version.uri)
    assert "3 images" in output("report", *lake)
    rows = frame(str(tmp_path / "see ü"), "images")
    assert [f"{tmp_path}/bilder ü/röte/red/{number:03}.jpg" for number in range(3)] == sorted(
        rows.path
    )


def test_spark_starts_where_the_hosts_name_has_no_address(tmp_path):
    require_namespaces("--map-root-user", "--uts")
    code = """
import os
from mlproject.integrations.spark_session import session
with session() as spark:
    print(spark.range(3).count(), os.uname().nodename)
"""
    script = 'unset SPARK_LOCAL_IP && hostname no-such-host && exec "$0" -c "$1"'
    words = ["unshare", "--user", "--map-root-user", "--uts", "sh", "-c", script]
    done = run_words([*words, sys.executable, code], tmp_path)
    assert "3 no-such-host\n" == done.stdout, done.stderr[-2000:]
