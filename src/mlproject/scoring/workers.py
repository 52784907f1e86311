"""The Python worker processes of Spark: one set a version, and what goes wrong in them."""

import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from py4j.protocol import Py4JError, Py4JJavaError
from pyspark import SparkContext
from pyspark.errors import PySparkException
from pyspark.sql import SparkSession

from mlproject.errors import MlprojectError
from mlproject.versions.registry import Version

# What must be set before a worker process imports a framework. One compute thread a task slot:
# two take twice as long for the whole.
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "TF_NUM_INTRAOP_THREADS": "1",
    "TF_NUM_INTEROP_THREADS": "1",
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "KERAS_BACKEND": "tensorflow",
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",  # a version holds no pickle: refuse any
}

RAISES = "org.apache.spark.api.python.PythonException"
# Source: Spark, PythonRunner.handlePythonException and PythonWorkerFactory
CRASHES = ("Python worker exited unexpectedly", "Python worker failed to connect back")
LOOK_S = 1.0  # between two looks at the jobs that may hang

_context_lock = threading.Lock()  # of the Spark context's environment, which all threads share


class RaisedError(MlprojectError):
    """The code of a version raised an exception in a worker, or answered with other rows."""


class CrashedError(MlprojectError):
    """A worker process died or was killed."""


class HungError(CrashedError):
    """No task ended for too long."""


@contextmanager
def of(spark: SparkSession, version: Version) -> Iterator[None]:
    """Gives the functions built in the block worker processes that no other version shares.

    Spark pools its Python workers by executable and environment.
    Source: Spark, SparkEnv.createPythonWorker.
    """
    context = spark.sparkContext
    with _context_lock:
        before = context.environment
        # Another dictionary: a thread that builds a function meanwhile goes through this one.
        context.environment = {**before, **ENVIRONMENT, "MLPROJECT_MODEL_ID": version.model_id}
        try:
            yield
        finally:
            context.environment = before


@contextmanager
def watched(spark: SparkSession, timeout_s: float) -> Iterator[None]:
    """Tells faults of workers in the block's jobs apart, and ends jobs that hang.

    Args:
        spark: The session whose jobs this thread starts in the block.
        timeout_s: Seconds in which some task of a running job must end.

    Raises:
        RaisedError: Code in a worker raised; the message is the exception's last line.
        CrashedError: A worker died; or, as HungError, no task ended in time.
    """
    context, hung, ended = spark.sparkContext, threading.Event(), threading.Event()
    group = f"mlproject-{uuid.uuid4()}"
    before: Any = context.getLocalProperty("spark.jobGroup.id")
    context.setLocalProperty("spark.jobGroup.id", group)
    watch = threading.Thread(target=_watch, args=(context, group, timeout_s, hung, ended))
    watch.start()
    try:
        yield
    except (Py4JJavaError, PySparkException) as error:
        words = str(error)
        if hung.is_set():
            raise HungError(f"no task ended in {timeout_s:g} s") from error
        if any(crash in words for crash in CRASHES):
            raise CrashedError("a worker process died") from error
        if type(error).__name__ == "PythonException" or RAISES in words:
            raise RaisedError(_last_line(words)) from error
        raise
    finally:
        ended.set()
        watch.join()
        context.setLocalProperty("spark.jobGroup.id", before)


def _watch(
    context: SparkContext,
    group: str,
    timeout_s: float,
    hung: threading.Event,
    ended: threading.Event,
) -> None:
    """Cancels the jobs of a group once their tasks have stood still for too long.

    A cancelled task's worker process is destroyed. Source: Spark, PythonRunner.MonitorThread.
    """
    seen: list[tuple[int, int, int]] = []
    since = time.monotonic()
    while not ended.wait(LOOK_S):
        try:
            now = _progress(context, group)
        except (Py4JError, OSError):  # the JVM has died, as the call at hand tells
            return
        if not now or now != seen:
            seen, since = now, time.monotonic()
        elif time.monotonic() - since > timeout_s:
            hung.set()
            context.cancelJobGroup(group)
            return


def _progress(context: SparkContext, group: str) -> list[tuple[int, int, int]]:
    """Job, stage and tasks ended, of each running job of a group."""
    tracker, found = context.statusTracker(), []
    for job in tracker.getJobIdsForGroup(group):
        info = tracker.getJobInfo(job)
        for stage in info.stageIds if info and info.status == "RUNNING" else ():
            told = tracker.getStageInfo(stage)
            if told and told.numActiveTasks:  # not one that waits for a free slot
                found.append((job, stage, told.numCompletedTasks))
    return sorted(found)


def _last_line(words: str) -> str:
    """The exception itself out of a worker's traceback."""
    lines = [line for line in words.splitlines() if line.strip()]
    start = next((i for i, line in enumerate(lines) if line.startswith("Traceback")), 0)
    own = [line for line in lines[start + 1 :] if not line.startswith((" ", "\t"))]
    return own[0] if own else lines[0]
