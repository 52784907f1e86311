"""The Spark session with Delta: the active one, else a new one."""

import atexit
import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import filelock
import pyarrow as pa
from py4j.protocol import Py4JError
from pyspark import SparkConf, SparkContext
from pyspark.errors import PySparkRuntimeError
from pyspark.sql import DataFrame, SparkSession

from mlproject.errors import UserError, first_line
from mlproject.integrations import delta_jars, java
from mlproject.integrations.local_files import output_to

DELTA = {
    "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
    "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
}

# Rows with whole images are thousands of times larger than Spark's defaults expect.
BLOBS = {
    # A reader holds one row group in memory. Parquet checks its size after 100 rows at the
    # earliest, which are 100 MB of photos of 1 MB. Source: parquet-hadoop, ParquetProperties.
    "parquet.block.size": str(16 * 1024 * 1024),
    "parquet.page.size.row.check.min": "1",
    "spark.sql.parquet.columnarReaderBatchSize": "64",  # rows; 4096 photos are 400 MB for each task
    "spark.sql.execution.arrow.maxRecordsPerBatch": "64",  # rows of a batch to and from Python
    "spark.sql.execution.arrow.maxBytesPerBatch": str(64 * 1024 * 1024),  # bytes of it
    "spark.sql.parquet.compression.codec": "uncompressed",  # photos are compressed already
    # Tasks of at most about a thousand photos; fewer bytes are divided evenly among all slots.
    "spark.sql.files.maxPartitionBytes": str(128 * 1024 * 1024),
    "spark.sql.files.openCostInBytes": str(256 * 1024),
}

PARTITION_ROWS = 50_000  # rows without content

LOCAL = {
    # Python does the work, and the JVM mostly starts: in a run of the tests its second compiler
    # (C2) took 40 % of the JVM's time on two cores. Without C2 the code cache has 48 MB, which a
    # long session fills: a quarter of its time then went to sweeping. The parallel collector takes
    # the least time on few cores and handles whole photos best.
    "spark.driver.extraJavaOptions": "-XX:TieredStopAtLevel=1 -XX:ReservedCodeCacheSize=240m "
    "-XX:+UseParallelGC -XX:MetaspaceSize=256m",
    "spark.sql.shuffle.partitions": "4",  # only ids are shuffled; the default 200 costs seconds
}

QUIET = {
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
    "spark.databricks.delta.snapshotPartitions": "2",  # the default 50 costs seconds per commit
}


@contextlib.contextmanager
def session(name: str = "mlproject") -> Iterator[SparkSession]:
    """The active Spark session, which stays open, or a new one that ends with the block.

    A new session takes its master from SPARK_MASTER, else from spark-defaults or spark-submit,
    else it runs on all cores of this machine. Settings in spark-defaults override ours.

    Raises:
        UserError: No Java, Delta's jars cannot be fetched, or the active session has no Delta.
    """
    # The context, because the active session is known to its own thread only.
    if SparkContext._active_spark_context is not None:
        active = SparkSession.builder.getOrCreate()
        _require_delta(active)
        _ship_package(active)
        with settings(active, BLOBS):
            yield active
        return
    log = Path(tempfile.mkdtemp(prefix="mlproject-spark-")) / "log.txt"
    started = _start(name, log)
    try:
        yield started
    finally:
        _stop(started)
        shutil.rmtree(log.parent, ignore_errors=True)


class LazySession:
    """A Spark session that starts at its first use: a command with nothing to do starts none."""

    def __init__(self, name: str) -> None:
        self._name, self._stack = name, contextlib.ExitStack()
        self._spark: SparkSession | None = None
        self.used_at = time.monotonic()

    def __call__(self) -> SparkSession:
        """The session; a new one after `close` or `end`."""
        self.used_at = time.monotonic()
        if self._spark is None:
            on_interrupt = signal.getsignal(signal.SIGINT)
            self._spark = self._stack.enter_context(session(self._name))
            if threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGINT, on_interrupt)  # Spark sets its own
        return self._spark

    def close(self) -> None:
        """Ends the session, if it has started."""
        self._spark = None
        self._stack.close()

    def end(self) -> None:
        """Ends the session and its JVM, which may have died."""
        self.close()
        end_jvm()


def master_name() -> str:
    """The master of the session that `session` gives, such as `local[2]`."""
    if SparkContext._active_spark_context is not None:
        master = str(SparkContext._active_spark_context.master)
    else:
        master = _master()
    return master.replace("*", str(os.cpu_count() or 1))


def end_jvm() -> None:
    """Ends the JVM that pyspark keeps for this process, after errors of Spark were reported."""
    # It ends when its stdin is closed. Source: pyspark 4.2, java_gateway.launch_gateway
    gateway: Any = None if SparkContext._active_spark_context else SparkContext._gateway
    process = getattr(gateway, "proc", None)
    if process is None:  # the JVM of spark-submit, which started this process
        return
    with contextlib.suppress(Py4JError, OSError):
        gateway.shutdown()
    process.stdin.close()
    try:
        process.wait(timeout=30)
    except subprocess.TimeoutExpired:
        process.kill()
    # pyspark keeps both for the process: the next session has to launch a JVM of its own.
    SparkContext._gateway = SparkContext._jvm = None


@contextlib.contextmanager
def settings(spark: SparkSession, wanted: dict[str, str]) -> Iterator[None]:
    """Sets SQL settings for a block and restores the former values.

    Delta ignores the writer options `parquet.*`, but Spark copies each setting of a session to
    Hadoop's configuration. Source: Spark, SessionState.newHadoopConf.
    """
    before = {key: spark.conf.get(key, None) for key in wanted}
    for key, value in wanted.items():
        spark.conf.set(key, value)
    try:
        yield
    finally:
        for key, old in before.items():
            if old is None:
                spark.conf.unset(key)
            else:
                spark.conf.set(key, old)


def from_arrow(spark: SparkSession, table: pa.Table) -> DataFrame:
    """The rows of a table without content, such as a listing, in few partitions.

    Spark makes one partition of each Arrow batch, which `BLOBS` keeps small: a listing of 100,000
    files would be 1,563 tasks.
    """
    with settings(spark, {"spark.sql.execution.arrow.maxRecordsPerBatch": str(PARTITION_ROWS)}):
        return spark.createDataFrame(table)


def _stop(spark: SparkSession) -> None:
    """Ends a session, and its JVM if that has died, so that the next session starts a new one."""
    try:
        spark.stop()
    except (Py4JError, OSError):
        spark.sparkContext.stop()  # ends the Python side: the call above failed in Java
        SparkSession._instantiatedSession = SparkSession._activeSession = None
        end_jvm()


def _start(name: str, log: Path) -> SparkSession:
    home = java.home()
    if home is not None:
        os.environ["JAVA_HOME"] = str(home)
    if "PYSPARK_GATEWAY_PORT" in os.environ or delta_jars.known():
        return _start_with_jars(name, log)
    print("Fetching Delta's jars once (13 MB) ...", file=sys.stderr)  # noqa: T201 - a wait
    # Two processes of Ivy that fill one cache leave broken jars: the second waits and reuses them.
    with filelock.FileLock(java.cache_folder() / "ivy.lock"):
        return _start_with_jars(name, log)


def _start_with_jars(name: str, log: Path) -> SparkSession:
    os.environ["PYSPARK_PYTHON"] = sys.executable  # workers import the packages of this process
    os.environ.setdefault("PYSPARK_DRIVER_PYTHON", sys.executable)
    defaults = _spark_defaults()
    master = _master()
    submitted = "PYSPARK_GATEWAY_PORT" in os.environ
    if submitted:  # spark-submit started the JVM: its --conf options apply
        SparkContext._ensure_initialized()
        defaults |= dict(SparkConf().getAll())
    wanted = {**DELTA, **BLOBS, **QUIET}
    if not submitted:
        wanted |= delta_jars.settings()
        if master.startswith("local"):
            wanted |= LOCAL | {"spark.driver.memory": f"{_heap(master)}m"}
    builder = SparkSession.Builder().appName(name)
    if os.environ.get("SPARK_MASTER"):
        builder = builder.master(master)
    for key, value in wanted.items():
        if key in ("spark.jars", "spark.jars.packages") and key in defaults:
            builder = builder.config(key, f"{defaults[key]},{value}")
        elif key not in defaults:
            builder = builder.config(key, value)
    try:
        with output_to(log):
            spark = builder.getOrCreate()
    except (PySparkRuntimeError, Py4JError) as error:
        raise UserError(_start_error(error, log)) from error
    _require_delta(spark)
    delta_jars.remember(spark)
    _ship_package(spark)
    counters: Any = spark.sparkContext._accumulatorServer
    counters.handle_error = lambda *_: None  # of a JVM that died, which the current call reports
    return spark


def _master() -> str:
    return os.environ.get("SPARK_MASTER") or _spark_defaults().get("spark.master") or "local[*]"


def _heap(master: str) -> int:
    """MiB of a local driver: for each slot a row group and a batch of large photos."""
    slots = re.match(r"local\[(\d+)", master)
    wanted = 1024 * max(2, int(slots[1]) if slots else os.cpu_count() or 1)
    installed = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 1024**2
    return min(wanted, max(2048, installed // 2))


def _spark_defaults() -> dict[str, str]:
    """The settings in spark-defaults.conf, which those of a session would silently override."""
    home = os.environ.get("SPARK_HOME")
    folder = os.environ.get("SPARK_CONF_DIR") or (f"{home}/conf" if home else None)
    file = Path(folder) / "spark-defaults.conf" if folder else None
    if file is None or not file.is_file():
        return {}
    # Lines such as "KEY VALUE", "KEY=VALUE" or "# a comment".
    lines = re.compile(r"^[ \t]*([^#=\s][^=\s]*)[ \t=]+(.*\S)", re.MULTILINE)
    return dict(lines.findall(file.read_text(encoding="utf-8")))


def _require_delta(spark: SparkSession) -> None:
    extensions = str(spark.conf.get("spark.sql.extensions", ""))
    on_databricks = "DATABRICKS_RUNTIME_VERSION" in os.environ
    if not on_databricks and DELTA["spark.sql.extensions"] not in extensions:
        raise UserError(
            f"The running Spark session has no Delta (spark.sql.extensions={extensions!r}). "
            f"Start it with --packages {delta_jars.package()} and "
            + " ".join(f"--conf {key}={value}" for key, value in DELTA.items())
        )


def _ship_package(spark: SparkSession) -> None:
    """Sends this package to the executors, which run functions of it."""
    if re.match(r"local(\[|$)", str(spark.sparkContext.master)):
        return
    if any(file.endswith("/mlproject.zip") for file in spark.sparkContext.listFiles):
        return
    package = Path(__file__).parents[1]
    folder = tempfile.mkdtemp(prefix="mlproject-package-")
    # Executors fetch it when they first need it, which can be late.
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    made = shutil.make_archive(f"{folder}/mlproject", "zip", package.parent, package.name)
    spark.sparkContext.addPyFile(made)


def _start_error(error: Exception, log: Path) -> str:
    output = log.read_text(encoding="utf-8", errors="replace") if log.is_file() else ""
    if "unresolved dependency" in output or "UNRESOLVED DEPENDENCIES" in output:
        return (
            "Spark could not fetch Delta's jars from Maven Central (needed once). Connect this "
            "machine to the network, or name a mirror in SPARK_CONF_DIR/spark-defaults.conf "
            f"(spark.jars.ivySettings), and run again. Log of Spark: {str(log)!r}"
        )
    return f"Spark did not start ({first_line(error)}). Read its log: {str(log)!r}"
