"""Starts new Spark sessions with Delta: their settings and JVM, in the background if asked."""

import atexit
import os
import re
import shutil
import signal
import sys
import tempfile
import threading
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from subprocess import STDOUT
from typing import Any

import filelock
from py4j.protocol import Py4JError
from pyspark import SparkConf, SparkContext
from pyspark.errors import PySparkRuntimeError
from pyspark.java_gateway import launch_gateway
from pyspark.sql import SparkSession

from mlproject.errors import UserError, first_line
from mlproject.integrations import java, java_trust, spark_jars

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
    # A batch to Python is limited by its bytes, whatever the size of an image.
    "spark.sql.execution.arrow.maxBytesPerBatch": str(8 * 1024 * 1024),
    "spark.sql.execution.arrow.maxRecordsPerBatch": "4096",
    "spark.sql.parquet.compression.codec": "uncompressed",  # photos are compressed already
    # Tasks of at most about a thousand photos; fewer bytes are divided evenly among all slots.
    "spark.sql.files.maxPartitionBytes": str(128 * 1024 * 1024),
    "spark.sql.files.openCostInBytes": str(256 * 1024),
}

LOCAL = {
    # Python does the work: in a run of the tests the JVM's second compiler (C2) took 40 % of its
    # time. Without C2 the code cache has 48 MB, which a long session fills: sweeping it took a
    # quarter of the time. The parallel collector takes the least time for whole photos.
    "spark.driver.extraJavaOptions": "-XX:TieredStopAtLevel=1 -XX:ReservedCodeCacheSize=240m "
    "-XX:+UseParallelGC -XX:MetaspaceSize=256m",
    "spark.sql.shuffle.partitions": "4",  # only ids are shuffled; the default 200 costs seconds
}

# Workers are forked from a process that has imported what they need. On a cluster this package
# would have to be installed: what is sent there is for workers only. On macOS a process that has
# imported much cannot be forked safely.
FORKED = {
    "spark.python.daemon.module": "mlproject.worker_daemon",
    "spark.executorEnv.MLPROJECT_IMPORTS": "mlproject.images.image_files "
    "mlproject.scoring.prediction_files",
    # As Spark SQL sets it: workers are pooled by environment, and `begin_workers` uses none of SQL.
    "spark.executorEnv.SPARK_SIMPLIFIED_TRACEBACK": "1",
}

# Settings in spark-defaults to which ours are added, by what separates their parts.
ADDED_TO = {"spark.jars": ",", "spark.jars.packages": ",", "spark.driver.extraClassPath": ":"}

QUIET = {
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
    "spark.databricks.delta.snapshotPartitions": "2",  # the default 50 costs seconds per commit
}


@dataclass(frozen=True, slots=True)
class Started:
    """A new session."""

    spark: SparkSession
    log: Path  # what its JVM prints, in a folder of its own
    archive: Path | None  # where the JVM saves its classes when it ends; None = it does not


_begun: list[Future[Started]] = []  # one at most


def begin(name: str, *, s3: bool = False, archive: bool = False) -> None:
    """Begins to start a session in the background, for the next call of `start`.

    Not where jars are to be fetched first: Ivy must not outlive a command that fails.
    """
    if _begun or SparkContext._active_spark_context is not None or not spark_jars.known(s3=s3):
        return
    begun = Future[Started]()
    _begun.append(begun)

    def run() -> None:
        try:
            begun.set_result(_start(name, s3, archive))
        except BaseException as error:  # noqa: BLE001 - `start` raises it
            begun.set_exception(error)

    # A daemon: a command that fails ends at once, and the JVM with its stdin.
    threading.Thread(target=run, name="start of Spark", daemon=True).start()


def active() -> SparkSession | None:
    """The active session of this process, which may be another's; None = there is none."""
    # The context, because the active session is known to its own thread only.
    if SparkContext._active_spark_context is None or _begun:  # one that starts is not used yet
        return None
    return SparkSession.builder.getOrCreate()


def start(name: str, *, s3: bool = False, archive: bool = False) -> Started:
    """A new session, which can read S3 if asked, or the one that has begun to start.

    Raises UserError if Spark cannot start.
    """
    if not _begun:
        return _start(name, s3, archive)
    try:
        return _begun[0].result()
    finally:
        _begun.clear()


def _start(name: str, s3: bool, archive: bool) -> Started:
    home = java.home()
    os.environ.pop("JAVA_HOME", None)  # it would precede `java` on PATH
    if home:
        os.environ["JAVA_HOME"] = str(home)
    java.remove_unused_archives()
    log = Path(tempfile.mkdtemp(prefix="mlproject-spark-")) / "log.txt"
    if "PYSPARK_GATEWAY_PORT" in os.environ or spark_jars.known(s3=s3):
        return _start_with_jars(name, log, s3, archive)
    what = "Delta's and S3's jars once (31 MB)" if s3 else "Delta's jars once (13 MB)"
    print(f"Fetching {what} ...", file=sys.stderr)  # noqa: T201 - a wait
    # Two processes of Ivy that fill one cache leave broken jars: the second waits and reuses them.
    with filelock.FileLock(java.cache_folder() / "ivy.lock"):
        return _start_with_jars(name, log, s3, archive)


def _start_with_jars(name: str, log: Path, s3: bool, archive: bool) -> Started:
    if is_local(master()) or "PYSPARK_PYTHON" not in os.environ:
        os.environ["PYSPARK_PYTHON"] = sys.executable  # workers import the packages of this process
    os.environ.setdefault("PYSPARK_DRIVER_PYTHON", sys.executable)
    on_interrupt = signal.getsignal(signal.SIGINT)
    defaults, saved = _spark_defaults(), None
    submitted = "PYSPARK_GATEWAY_PORT" in os.environ
    if submitted:  # spark-submit started the JVM: its --conf options apply
        SparkContext._ensure_initialized()
        defaults |= dict(SparkConf().getAll())
    wanted = {**DELTA, **BLOBS, **QUIET}
    if not submitted:
        wanted |= spark_jars.settings(local=is_local(master()), s3=s3)
    if is_local(master()) and not submitted:
        jars = wanted.get("spark.driver.extraClassPath", "")
        classes = java.archive(jars)
        # None of a class path with folders or of jars to fetch, and a running JVM saves none.
        if archive and jars and not (classes or _conf_folder() or SparkContext._gateway):
            saved = java.new_archive(jars) if java.can_archive() else None
        wanted |= _local(classes, saved, s3)
    conf = SparkConf(loadDefaults=False).setAppName(name)
    if os.environ.get("SPARK_MASTER"):
        conf.setMaster(master())
    for key, value in wanted.items():
        if key in ADDED_TO and key in defaults:
            conf.set(key, f"{defaults[key]}{ADDED_TO[key]}{value}")
        elif key not in defaults:
            conf.set(key, value)
    try:
        if not submitted and SparkContext._gateway is None:
            launch: Any = launch_gateway  # untyped
            with log.open("wb") as file:
                gateway = launch(conf, {"stdout": file, "stderr": STDOUT})
            gateway.reads_s3 = s3
            SparkContext._ensure_initialized(gateway=gateway)
        # With the JVM's own settings, as the builder would: spark-submit has set a master there.
        begin_workers(SparkContext.getOrCreate(SparkConf().setAll(conf.getAll())))
        spark = SparkSession.Builder().config(conf=conf).getOrCreate()
    except (PySparkRuntimeError, Py4JError) as error:
        raise UserError(_start_error(error, log)) from error
    if threading.current_thread() is threading.main_thread():  # Spark sets a handler of its own
        signal.signal(signal.SIGINT, on_interrupt)
    require_delta(spark)
    spark_jars.remember(spark)
    ship_package(spark)
    counters: Any = spark.sparkContext._accumulatorServer
    counters.handle_error = lambda *_: None  # of a JVM that died, which the current call reports
    return Started(spark, log, saved)


def _local(classes: Path | None, saved: Path | None, s3: bool) -> dict[str, str]:
    """The settings of a session on this machine, which uses an archive of classes or saves one."""
    package = str(Path(__file__).parents[2])
    paths = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    if package not in paths:  # the daemon imports this package
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [package, *paths]))
    options = [LOCAL["spark.driver.extraJavaOptions"], *(java_trust.options() if s3 else ())]
    if classes or saved:
        name = "SharedArchiveFile" if classes else "ArchiveClassesAtExit"
        options.append(f"'-XX:{name}={classes or saved}'")
    forked = FORKED if sys.platform == "linux" else {}
    driver = {"memory": f"{_heap(master())}m", "extraJavaOptions": " ".join(options)}
    return {**LOCAL, **forked, **{f"spark.driver.{key}": word for key, word in driver.items()}}


def begin_workers(context: SparkContext) -> None:
    """Begins to start a worker with the environment that the context has now, in the background.

    So the process that workers are forked from imports while Spark plans the first query, which
    takes about as long. Other daemons import nothing, and their workers would not be those of SQL.
    """
    if context.getConf().get("spark.python.daemon.module") != "mlproject.worker_daemon":
        return
    # RDDs have no public action that would not take the environment of a later moment.
    task: Any = context.parallelize([0], 1).mapPartitions(list)._jrdd

    def run() -> None:
        with suppress(Exception):  # the first query reports it, unless the session has ended
            task.count()

    threading.Thread(target=run, name="start of workers", daemon=True).start()


def master() -> str:
    """The master of a new session."""
    return os.environ.get("SPARK_MASTER") or _spark_defaults().get("spark.master") or "local[*]"


def is_local(master: str) -> bool:
    """Whether tasks run in the JVM of the driver, and workers on its machine."""
    return bool(re.match(r"local(\[|$)", master))


def _heap(master: str) -> int:
    """MiB of a local driver: for each slot a row group and a batch of large photos."""
    slots = re.match(r"local\[(\d+)", master)
    wanted = 1024 * max(2, int(slots[1]) if slots else os.cpu_count() or 1)
    installed = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 1024**2
    return min(wanted, max(2048, installed // 2))


def _spark_defaults() -> dict[str, str]:
    """The settings in spark-defaults.conf, which those of a session would silently override."""
    folder = _conf_folder()
    file = folder / "spark-defaults.conf" if folder else None
    if file is None or not file.is_file():
        return {}
    # Lines such as "KEY VALUE", "KEY=VALUE" or "# a comment".
    lines = re.compile(r"^[ \t]*([^#=\s][^=\s]*)[ \t=]+(.*\S)", re.MULTILINE)
    return dict(lines.findall(file.read_text(encoding="utf-8")))


def _conf_folder() -> Path | None:
    """The folder of Spark's configuration, which is on the class path; None = there is none."""
    home = os.environ.get("SPARK_HOME")
    named = os.environ.get("SPARK_CONF_DIR") or (f"{home}/conf" if home else "")
    return Path(named) if named and Path(named).is_dir() else None


def require_delta(spark: SparkSession) -> None:
    """Raises UserError when a session has no Delta."""
    extensions = str(spark.conf.get("spark.sql.extensions", ""))
    on_databricks = "DATABRICKS_RUNTIME_VERSION" in os.environ
    if not on_databricks and DELTA["spark.sql.extensions"] not in extensions:
        raise UserError(
            f"The running Spark session has no Delta (spark.sql.extensions={extensions!r}). "
            f"Start it with --packages {spark_jars.packages(s3=False)} and "
            + " ".join(f"--conf {key}={value}" for key, value in DELTA.items())
        )


def ship_package(spark: SparkSession) -> None:
    """Sends this package to the executors of a cluster, which run functions of it."""
    if is_local(str(spark.sparkContext.master)):
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
            "Spark could not fetch its jars from Maven Central (needed once). Connect this machine "
            "to the network, or name a mirror in SPARK_CONF_DIR/spark-defaults.conf "
            f"(spark.jars.ivySettings), and run again. Log of Spark: {str(log)!r}"
        )
    return f"Spark did not start ({first_line(error)}). Read its log: {str(log)!r}"
