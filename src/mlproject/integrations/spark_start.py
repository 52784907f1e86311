"""Starts new Spark sessions with Delta: their settings and JVM, in the background if asked."""

import atexit
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import filelock
from py4j.protocol import Py4JError
from pyspark import SparkConf, SparkContext
from pyspark.errors import PySparkRuntimeError
from pyspark.java_gateway import launch_gateway
from pyspark.sql import SparkSession

from mlproject.errors import MachineError, MlprojectError, UserError
from mlproject.integrations import (
    java,
    outages,
    spark_environment,
    spark_jars,
    spark_log,
    spark_settings,
)
from mlproject.integrations.spark_settings import DELTA, is_local
from mlproject.storage.local_files import cache_folder

JVM_END_S = 60  # seconds; saving its classes takes 11 on two cores


@dataclass(frozen=True, slots=True)
class Started:
    """A new session."""

    spark: SparkSession
    archive: Path | None  # where the JVM saves its classes when it ends; None = it does not


_begun: list[Future[Started]] = []  # one at most


def begin(name: str, *, store: str = "", archive: bool = False) -> None:
    """Begins to start a session in the background, for the next call of `start`.

    Not where jars are to be fetched first: Ivy must not outlive a command that fails.
    """
    if _begun or SparkContext._active_spark_context is not None or not spark_jars.known(store):
        return
    begun = Future[Started]()
    _begun.append(begun)

    def run() -> None:
        try:
            begun.set_result(_start(name, store, archive))
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


def start(name: str, *, store: str = "", archive: bool = False) -> Started:
    """A new session, which can read a store if asked, or the one that has begun to start.

    Raises UserError if Spark cannot start.
    """
    if not _begun:
        return _start(name, store, archive)
    try:
        return _begun[0].result()
    finally:
        _begun.clear()


def _start(name: str, store: str, archive: bool) -> Started:
    home = java.home()
    os.environ.pop("JAVA_HOME", None)  # it would precede `java` on PATH
    if home:
        os.environ["JAVA_HOME"] = str(home)
    java.remove_unused_archives()
    try:
        if not spark_settings.submitted() and not spark_jars.known(store):
            _fetch_jars(store)
        return _start_with_jars(name, store, archive)
    except (PySparkRuntimeError, Py4JError, MlprojectError) as error:
        failure = error if isinstance(error, MlprojectError) else _start_error(error)
        # The next session starts anew: the context may be there.
        if SparkContext._active_spark_context is not None:
            with suppress(Py4JError, OSError):
                SparkContext._active_spark_context.stop()
        end_jvm()
        raise failure from error


def _fetch_jars(store: str) -> None:
    whose = f"Delta's jars, and those for {store}://," if store else "Delta's jars"
    print(f"Fetching {whose} once ({spark_jars.MEGABYTES[store]} MB) ...", file=sys.stderr)  # noqa: T201 - a wait
    # Two processes of Ivy that fill one cache leave broken jars: the second waits and reuses them.
    with filelock.FileLock(cache_folder() / "ivy.lock"):
        if not spark_jars.known(store):
            end_jvm()
            _launch(SparkConf(loadDefaults=False), [])
            spark_jars.fetch(_jvm(), spark_settings.given(), store)
    end_jvm()


def _start_with_jars(name: str, store: str, archive: bool) -> Started:
    on_interrupt = signal.getsignal(signal.SIGINT)
    given, submitted = spark_settings.given(), spark_settings.submitted()
    master = spark_settings.master(given)
    local, jars, own, saved, trusted = is_local(master), list[str](), {}, None, None
    use = (local, store)
    if local or "PYSPARK_PYTHON" not in os.environ:
        os.environ["PYSPARK_PYTHON"] = sys.executable  # workers import the packages of this process
    os.environ.setdefault("PYSPARK_DRIVER_PYTHON", sys.executable)
    if not submitted:
        jars = spark_jars.known(store)
        if not _can_be_used(*use):
            end_jvm()
        trusted = spark_environment.trust_store(store) if store else None
        trust = spark_environment.trust_options(trusted) if trusted else ()
        if local:
            classes, saved = _archives(":".join(jars), save=archive)
            own = spark_settings.local(master, classes, saved, trust)
        elif trusted:
            own = spark_environment.trust_settings(trusted)
    conf = spark_settings.added_to(given, own).setAppName(name)
    if os.environ.get("SPARK_MASTER"):
        conf.setMaster(master)
    if not submitted and SparkContext._gateway is None:
        alone = local and given.get("spark.ui.enabled") != "true"
        _launch(conf, jars, alone=alone, use=use)
        if not local:
            spark_log.log_executors(_jvm())
    # With the JVM's own settings, as the builder would: spark-submit has set a master there.
    begin_workers(SparkContext.getOrCreate(SparkConf().setAll(conf.getAll())))
    spark = SparkSession.Builder().config(conf=conf).getOrCreate()
    if threading.current_thread() is threading.main_thread():  # Spark sets a handler of its own
        signal.signal(signal.SIGINT, on_interrupt)
    require_delta(spark)
    ship(spark, jars, [trusted] if trusted else [])
    counters: Any = spark.sparkContext._accumulatorServer
    counters.handle_error = lambda *_: None  # of a JVM that died, which the current call reports
    if not local and spark.conf.get("spark.dynamicAllocation.enabled", "false") != "true":
        threading.Thread(target=spark_log.say_what_is_missing, args=(spark,), daemon=True).start()
    return Started(spark, saved)


def _archives(jars: str, *, save: bool) -> tuple[Path | None, Path | None]:
    """The archive of classes that the next JVM uses, and the one that it saves, if any.

    None of a class path with folders or of jars to fetch, and a running JVM saves none.
    """
    classes = java.archive(jars)
    saves = save and jars and not (classes or spark_settings.conf_folder() or SparkContext._gateway)
    return classes, java.new_archive(jars) if saves and java.can_archive() else None


def _can_be_used(local: bool, store: str) -> bool:
    """Whether the running JVM, if there is one, can have a session on such a master, with a store.

    One that a person's ended session has left has no Delta.
    """
    gateway = SparkContext._gateway
    use: Any = vars(gateway).get("use") if gateway else None  # it gives other names to Java
    return bool(use) and use[0] == local and store in ("", use[1])


def _launch(
    conf: SparkConf,
    jars: Sequence[str],
    *,
    alone: bool = False,
    use: tuple[bool, str] | None = None,
) -> None:
    """Starts the JVM of this process; `use` is what it can be used for, see `_can_be_used`.

    The jars and `alone` are those of `spark_environment.complete`.
    """
    launch: Any = launch_gateway  # untyped
    with spark_environment.complete(jars=jars, alone=alone):
        gateway = launch(conf, {"stdout": spark_log.new(), "stderr": subprocess.STDOUT})
    gateway.use = use
    SparkContext._ensure_initialized(gateway=gateway)
    spark_environment.log_in(_jvm())


def _jvm() -> Any:
    """The JVM of this process, for which pyspark has no public name."""
    return SparkContext._jvm


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


def require_delta(spark: SparkSession) -> None:
    """Raises UserError when a session has no Delta."""
    if "DATABRICKS_RUNTIME_VERSION" in os.environ:  # it is built in
        return
    extensions = str(spark.conf.get("spark.sql.extensions", ""))
    delta: str = DELTA["spark.sql.extensions"]
    if delta in extensions and _jvm().org.apache.spark.util.Utils.classIsLoadable(delta):
        return
    raise UserError(
        f"The running Spark session has no Delta (spark.sql.extensions={extensions!r}). "
        f"Start it with --packages {spark_jars.packages()} and "
        + " ".join(f"--conf {key}={value}" for key, value in DELTA.items())
    )


def ship(spark: SparkSession, jars: Sequence[str] = (), files: Sequence[Path] = ()) -> None:
    """Sends jars, files and this package to executors of a cluster, which run functions of it."""
    context: Any = spark.sparkContext
    if is_local(str(context.master)):
        return
    for jar in jars:
        context._jsc.addJar(jar)
    for file in files:
        context.addFile(str(file))
    if any(name.endswith("/mlproject.zip") for name in context.listFiles):
        return
    package = Path(__file__).parents[1]
    folder = tempfile.mkdtemp(prefix="mlproject-package-")
    # Executors fetch it when they first need it, which can be late.
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    made = shutil.make_archive(f"{folder}/mlproject", "zip", package.parent, package.name)
    context.addPyFile(made)


def end_jvm() -> bool:
    """Ends the JVM that pyspark keeps for this process, after errors of Spark were reported.

    Returns whether it has ended by itself, and without an error.
    """
    # It ends when its stdin is closed. Source: pyspark 4.2, java_gateway.launch_gateway
    gateway: Any = None if SparkContext._active_spark_context else SparkContext._gateway
    process = getattr(gateway, "proc", None)
    if process is None:  # the JVM of spark-submit, which started this process
        return False
    with suppress(Py4JError, OSError):
        gateway.shutdown()
    process.stdin.close()
    try:
        process.wait(timeout=JVM_END_S)
    except subprocess.TimeoutExpired:
        process.kill()
    # pyspark keeps both for the process: the next session has to launch a JVM of its own.
    SparkContext._gateway = SparkContext._jvm = None
    return bool(process.returncode == 0)


def _start_error(error: Exception) -> MlprojectError:
    if "unresolved dependency" in str(error):
        return UserError(
            "Spark could not fetch its jars from Maven Central (needed once). Connect this machine "
            "to the network, or name a mirror in SPARK_CONF_DIR/spark-defaults.conf "
            f"(spark.jars.ivySettings), and run again.{spark_log.saved()}"
        )
    if reason := spark_log.reason():
        return MachineError(
            f"Spark did not start: {reason}. Mend that, or name another in SPARK_MASTER, and run "
            f"again.{spark_log.saved()}"
        )
    thrown = re.findall(r'^Exception in thread "main" (.*)', spark_log.text(), re.MULTILINE)
    cause = thrown[-1] if thrown else outages.error_message(error)
    return UserError(f"Spark did not start ({cause}).{spark_log.saved()}")
