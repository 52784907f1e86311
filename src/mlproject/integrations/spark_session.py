"""The Spark session with Delta: the active one, else a new one."""

import contextlib
import os
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
from py4j.protocol import Py4JError
from pyspark.sql import DataFrame, SparkSession

from mlproject.errors import UserError
from mlproject.integrations import java, spark_jars, spark_settings, spark_start
from mlproject.storage.object_storage import store_of

PARTITION_ROWS = 50_000  # rows without content


@contextlib.contextmanager
def session(
    name: str = "mlproject", *, lake: str = "", archive: bool = False
) -> Iterator[SparkSession]:
    """The active Spark session, which stays open, or a new one that ends with the block.

    A new session takes its master from SPARK_MASTER, else from spark-defaults or spark-submit,
    else it runs on all cores of this machine. Settings in spark-defaults override ours. It is the
    one that `spark_start.begin` has begun to start, if any. It can read `lake`: for one on object
    storage jars are fetched first. With `archive` its classes are saved at its end for the sessions
    after it, once on a machine; see `java.new_archive`.

    Raises:
        UserError: No Java, Delta's jars cannot be fetched, or the active session has no Delta.
    """
    active = spark_start.active()
    if active is not None:
        spark_start.require_delta(active)
        spark_start.ship(active)
        with settings(active, spark_settings.BLOBS):
            yield active
        return
    started = spark_start.start(name, store=store_of(lake), archive=archive)
    try:
        yield started.spark
    finally:
        _stop(started.spark)
        if started.archive:
            print("Saving Spark's classes once (190 MB) ...", file=sys.stderr)  # noqa: T201 - a wait
            if spark_start.end_jvm():
                java.keep_archive(started.archive)
            started.archive.unlink(missing_ok=True)


def fetch_jars(store: str = "s3") -> None:
    """Fetches the jars of Delta and of a store, unless they are there: s3, gs, abfss or "".

    For machines without a network.

    Raises:
        UserError: There is no such store, or they cannot be fetched.
    """
    if store and store not in spark_jars.STORES:
        raise UserError(f"No store is called {store!r}. Name one of {', '.join(spark_jars.STORES)}")
    with session(lake=f"{store}://" if store else ""):
        pass


class LazySession:
    """A Spark session that starts at its first use: a command with nothing to do starts none."""

    def __init__(self, name: str, *, lake: str = "", archive: bool = False) -> None:
        self._options: Any = {"name": name, "lake": lake, "archive": archive}
        self._stack = contextlib.ExitStack()
        self._spark: SparkSession | None = None
        self.used_at = time.monotonic()

    def __call__(self) -> SparkSession:
        """The session; a new one after `close` or `end`."""
        self.used_at = time.monotonic()
        if self._spark is None:
            self._spark = self._stack.enter_context(session(**self._options))
        return self._spark

    def close(self) -> None:
        """Ends the session, if it has started."""
        self._spark = None
        self._stack.close()

    def end(self) -> None:
        """Ends the session and its JVM, which may have died."""
        self.close()
        spark_start.end_jvm()


def master_name() -> str:
    """The master of the session that `session` gives, such as `local[2]`."""
    active = spark_start.active()
    if active is not None:
        master = str(active.sparkContext.master)
    else:
        master = spark_settings.master(spark_settings.given())
    return master.replace("*", str(os.cpu_count() or 1))


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

    Spark makes one partition of each Arrow batch, which `spark_settings.BLOBS` keeps small.
    """
    with settings(spark, {"spark.sql.execution.arrow.maxRecordsPerBatch": str(PARTITION_ROWS)}):
        return spark.createDataFrame(table)


def _stop(spark: SparkSession) -> None:
    """Ends a session, and its JVM if that has died, so that the next session starts a new one."""
    context: Any = spark.sparkContext
    counters, context._accumulatorServer = context._accumulatorServer, None
    if counters is not None:  # else the block has stopped the session
        # It waits up to a second for a thread of its own. Source: pyspark.accumulators
        threading.Thread(target=counters.shutdown, daemon=True).start()
    try:
        spark.stop()
    except (Py4JError, OSError):
        spark.sparkContext.stop()  # ends the Python side: the call above failed in Java
        SparkSession._instantiatedSession = SparkSession._activeSession = None
        spark_start.end_jvm()
