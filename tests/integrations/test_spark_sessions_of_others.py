"""Sessions that spark-submit or a notebook has started, and clusters that give no executors."""

import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from mlproject.integrations import spark_jars, spark_log, spark_settings
from tests.conftest import photos
from tests.support.fresh_processes import run, run_words, users_environment
from tests.support.lakes import frame
from tests.support.spark_clusters import cluster, with_defaults


@pytest.fixture
def delta():
    """What a session with Delta is started with, by jars that are here."""
    return {"spark.jars": ",".join(spark_jars.known()), **spark_settings.DELTA}


def submit(folder, *options):
    """Runs `spark-submit OPTIONS pipelines/ingest.py`."""
    photos(folder / "source", 3)
    launcher = Path(__file__).parents[2] / "pipelines" / "ingest.py"
    program = str(Path(sys.executable).with_name("spark-submit"))
    return run_words([program, *options, str(launcher), "--source", "source"], folder)


@pytest.mark.spark
def test_spark_submit_runs_a_command_with_its_own_options(delta, tmp_path):
    options = [word for item in delta.items() for word in ("--conf", "=".join(item))]
    done = submit(tmp_path, "--master", "local[3]", *options)
    assert 0 == done.returncode, done.stdout + done.stderr
    assert "Ingested 3 of 3 image files" in done.stdout
    assert 3 == len(frame(str(tmp_path / "lake"), "images"))


@pytest.mark.spark
def test_spark_submit_without_delta_is_refused_with_the_options_that_it_needs(tmp_path):
    done = submit(tmp_path, "--master", "local[1]")
    assert 2 == done.returncode
    # spark-submit prints on stdout what Python prints on either.
    assert f"Start it with --packages {spark_jars.packages()}" in done.stdout


@pytest.mark.spark
def test_functions_use_the_session_of_a_notebook(delta, tmp_path):
    photos(tmp_path / "source", 3)
    code = """
import sys
from pyspark.sql import SparkSession
import mlproject
builder = SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false")
for key, value in dict(word.split("=", 1) for word in sys.argv[1:]).items():
    builder = builder.config(key, value)
spark = builder.getOrCreate()
print(mlproject.ingest("source").ingested.rows, mlproject.report(out="report.html").images)
print(spark.range(3).count())
"""
    done = run(code, tmp_path, *("=".join(item) for item in delta.items()))
    assert ["3 3", "3"] == done.stdout.splitlines(), done.stderr[-2000:]


def test_the_master_is_that_of_the_environment_then_of_options_then_of_the_files(
    tmp_path, monkeypatch
):
    monkeypatch.delenv("SPARK_MASTER")
    monkeypatch.delenv("PYSPARK_SUBMIT_ARGS")
    monkeypatch.setenv("SPARK_CONF_DIR", str(tmp_path))
    assert "local[*]" == spark_settings.master(spark_settings.given())
    (tmp_path / "spark-defaults.conf").write_text("spark.master local[5]\nspark.cores.max 4\n")
    assert "local[5]" == spark_settings.master(spark_settings.given())
    monkeypatch.setenv("PYSPARK_SUBMIT_ARGS", "--master spark://here:7077 pyspark-shell")
    given = spark_settings.given()
    assert {"spark.master": "spark://here:7077", "spark.cores.max": "4"} == given
    assert "spark://here:7077" == spark_settings.master(given)
    monkeypatch.setenv("SPARK_MASTER", "local[7]")
    assert "local[7]" == spark_settings.master(given)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("--conf spark.cores.max=2 -c 'a.b=c d=e'", {"spark.cores.max": "2", "a.b": "c d=e"}),
        (
            "--conf=spark.cores.max=2 --master=yarn",
            {"spark.cores.max": "2", "spark.master": "yarn"},
        ),
        ("--repositories https://mirror", {"spark.jars.repositories": "https://mirror"}),
        ("--properties-file other.conf", {"spark.ui.enabled": "true"}),
        ("--properties-file=other.conf --conf spark.ui.enabled=no", {"spark.ui.enabled": "no"}),
        (
            "--load-spark-defaults --properties-file other.conf",
            {"spark.cores.max": "4", "spark.ui.enabled": "true"},
        ),
    ],
)
def test_options_in_the_environment_are_known_in_each_spelling(
    tmp_path, monkeypatch, words, expected
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SPARK_CONF_DIR", str(tmp_path))
    (tmp_path / "spark-defaults.conf").write_text("spark.cores.max 4\nspark.ui.enabled false\n")
    (tmp_path / "other.conf").write_text("spark.ui.enabled=true\n")
    monkeypatch.setenv("PYSPARK_SUBMIT_ARGS", f"{words} pyspark-shell")
    assert expected.items() <= spark_settings.given().items()
    if "--properties-file" in words and "load" not in words:
        assert "spark.cores.max" not in spark_settings.given()


CLASS_PATH = """
from mlproject.integrations.spark_session import session
with session() as spark:
    print(spark._jvm.java.lang.System.getProperty("java.class.path").split(":")[0])
"""


@pytest.mark.spark
@pytest.mark.parametrize(
    "option", ["--driver-class-path", "--conf spark.driver.extraClassPath="], ids=["option", "conf"]
)
def test_a_class_path_of_the_person_is_used_beside_that_of_delta(tmp_path, option):
    jar = f"{tmp_path}/own.jar"
    words = f"{option}{jar}" if option.endswith("=") else f"{option} {jar}"
    done = run(CLASS_PATH, tmp_path, PYSPARK_SUBMIT_ARGS=f"{words} pyspark-shell")
    assert (f"{jar}\n", "") == (done.stdout, done.stderr)


@pytest.mark.spark
def test_the_jvm_that_a_persons_session_has_left_is_not_used(tmp_path):
    code = """
from pyspark.sql import SparkSession
from mlproject.integrations.spark_session import session
SparkSession.builder.master("local[1]").config("spark.ui.enabled", "false").getOrCreate().stop()
with session() as spark:
    print(spark.range(3).count())
"""
    done = run(code, tmp_path)
    assert ("3\n", 0) == (done.stdout, done.returncode), done.stderr


ADDRESSES = """
import os, sys
from mlproject.integrations.spark_session import session
for master in sys.argv[1:]:
    os.environ["SPARK_MASTER"] = master
    with session() as spark:
        print(spark._jvm.java.lang.System.getenv("SPARK_LOCAL_IP"), spark.range(3).count())
"""


@pytest.mark.thorough
@pytest.mark.spark
def test_a_local_session_listens_to_this_machine_alone_and_one_on_a_cluster_does_not(tmp_path):
    with cluster(tmp_path, [[]], cores=1) as made:
        done = run(ADDRESSES, tmp_path, "local[1]", made.url, "local[2]")
    assert ["127.0.0.1 3", "None 3", "127.0.0.1 3"] == done.stdout.splitlines(), done.stderr


@pytest.mark.thorough
@pytest.mark.spark
def test_a_local_session_whose_pages_are_switched_on_shows_them_to_others(tmp_path):
    options = "--conf spark.ui.enabled=true pyspark-shell"
    done = run(ADDRESSES, tmp_path, "local[1]", PYSPARK_SUBMIT_ARGS=options)
    assert ["None 3"] == done.stdout.splitlines(), done.stderr


@pytest.mark.parametrize(
    ("gibibytes", "master", "expected"),
    [(64, "local[4]", 4096), (64, "local[1]", 2048), (3, "local[4]", 1536), (1, "local[4]", 1024)],
)
def test_the_heap_grows_with_the_slots_to_half_the_memory(monkeypatch, gibibytes, master, expected):
    monkeypatch.setattr(spark_settings, "memory", lambda: gibibytes * 2**30)
    options = spark_settings.local(master, None, None, ())
    assert f"{expected}m" == options["spark.driver.memory"]


@pytest.mark.parametrize("file", ["memory.max", "memory/memory.limit_in_bytes"])
def test_a_container_has_the_memory_of_its_group(tmp_path, file):
    installed = spark_settings.memory(tmp_path)
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_text("1073741824\n")
    assert 2**30 == spark_settings.memory(tmp_path)
    (tmp_path / file).write_text("max\n" if file == "memory.max" else f"{2**63 - 4096}\n")
    assert installed == spark_settings.memory(tmp_path)


SESSION = """
import contextlib, sys
from mlproject.commands import console
from mlproject.errors import MachineError
from mlproject.integrations import spark_log, spark_session
spark_log.EXECUTOR_WAIT_S = 1
if "twice" in sys.argv:
    with contextlib.suppress(MachineError), spark_session.session():
        print("started")
with console.exit_codes("command"):
    with spark_session.session() as spark:
        print(spark.range(3).count())
"""


@pytest.mark.spark
def test_a_cluster_whose_executors_do_not_start_is_one_line_with_the_workers_own_words(tmp_path):
    with cluster(tmp_path, [["0"]], cores=1, scala="") as made:
        done = run(SESSION, tmp_path, "twice", SPARK_MASTER=made.url)
    assert (1, "") == (done.returncode, done.stdout)
    (line,) = done.stderr.splitlines()
    assert "its executors ended, 10 in all: " in line
    assert "Cannot find any build directories" in line
    log = Path(line.split("Log of Spark: '")[1].rstrip("'"))
    assert "Master removed our application" in log.read_text()
    log.unlink()


@pytest.mark.thorough
@pytest.mark.spark
def test_a_cluster_without_a_free_gpu_is_waited_for_with_one_line(tmp_path):
    asked = {"spark.executor.resource.gpu.amount": 1, "spark.executor.memory": "512m"}
    configured = with_defaults(tmp_path / "conf", asked)
    with cluster(tmp_path, [[]], cores=1) as made:
        process = subprocess.Popen(
            [sys.executable, "-c", SESSION],
            cwd=tmp_path,
            env={**users_environment(), "SPARK_MASTER": made.url, **configured},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        line = process.stderr.readline()
        assert line.startswith(f"Spark waits: {made.url} has given no executor in 1 s (memory=512m")
        assert "resource.gpu.amount=1" in line
        made.start_worker("worker1", ["0"])
        out, rest = process.communicate(timeout=120)
    assert ("3\n", "", 0) == (out, rest, process.returncode)


# Of Spark 4.2, without times and stacks.
UNREACHABLE = """
WARN StandaloneAppClient$ClientEndpoint: Failed to connect to master node7:7077
org.apache.spark.SparkException: Exception thrown in awaitResult:
Caused by: java.io.IOException: Failed to connect to node7/10.0.0.7:7077
Caused by: java.net.ConnectException: finishConnect(..) failed with error(-111): Connection refused
ERROR StandaloneSchedulerBackend: Application has been killed. Reason: All masters are \
unresponsive! Giving up.
"""


def test_the_log_says_why_a_master_does_not_answer(monkeypatch):
    monkeypatch.setattr(spark_log, "text", lambda: UNREACHABLE)
    assert "the master node7:7077 does not answer (Connection refused)" == spark_log.reason()
    monkeypatch.setattr(spark_log, "text", lambda: "WARN of something else")
    assert "" == spark_log.reason()


def test_a_log_is_kept_where_a_message_names_it_and_leaves_no_file_else(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(spark_log, "_logs", [])
    assert ("", "") == (spark_log.text(), spark_log.saved())
    log = spark_log.new()
    subprocess.run(["echo", "printed"], stdout=log, check=True)
    assert "printed\n" == spark_log.text()
    assert [] == list(tmp_path.iterdir())
    sentence = spark_log.saved()
    [file] = tmp_path.iterdir()
    assert f" Log of Spark: '{file}'" == sentence
    assert "printed\n" == file.read_text()
    spark_log.new()
    assert "" == spark_log.text()
