"""The Python worker processes of Spark: those of a version, and faults in them."""

import math
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

from py4j.protocol import Py4JError, Py4JJavaError
from pyspark import SparkContext
from pyspark.errors import PySparkException
from pyspark.sql import SparkSession

from mlproject import inference
from mlproject.errors import MlprojectError
from mlproject.integrations import outages, spark_settings, spark_start
from mlproject.lake.queries import MissingFilesError
from mlproject.scoring.decision import Fault
from mlproject.versions import version_files
from mlproject.versions.engines import ONNXRUNTIME
from mlproject.versions.version import Version

# What must be set before a worker process imports a framework. One compute thread a core of the
# task: two take twice as long for the whole.
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "TF_NUM_INTRAOP_THREADS": "1",  # in workers: as many as a task has cores
    "TF_NUM_INTEROP_THREADS": "1",
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "KERAS_BACKEND": "tensorflow",
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",  # a version holds no pickle: refuse any
    "MLFLOW_DISABLE_TELEMETRY": "true",  # a thread and a request for each worker process
    "MLPROJECT_IMPORTS": "mlflow.pyfunc",
    # The addresses that Spark assigns are those of nvidia-smi, in this order; CUDA has another one.
    "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
    # float32 stays float32: not all of cuDNN follows ONNX Runtime's `use_tf32`.
    # Source: NVIDIA's variable for all its libraries; microsoft/onnxruntime, pull request 19470.
    "NVIDIA_TF32_OVERRIDE": "0",
}

# Arrow batches for tasks with a GPU, which computes hundreds of images at once. In a CPU task they
# would take more memory and no less time.
GPU_BATCHES = {"spark.sql.execution.arrow.maxBytesPerBatch": str(128 * 1024 * 1024)}

RAISES = "org.apache.spark.api.python.PythonException"
# Source: Spark, PythonRunner.handlePythonException and PythonWorkerFactory
CRASHES = ("Python worker exited unexpectedly", "Python worker failed to connect back")
# Source: Spark, error conditions FAILED_READ_FILE, READ_FILE and PATH_NOT_FOUND; the JDK's class
MISSING = ("FileNotFoundException", "FILE_NOT_EXIST", "PATH_NOT_FOUND")
NOT_WRITTEN = "NotWrittenError: "  # as of `prediction_files`, in a worker's traceback
POLL_S = 1.0  # between two requests for the progress of jobs that may hang

_prepared: set[tuple[str, str]] = set()  # ids of sessions, owners of worker processes
_context_lock = threading.Lock()  # of the Spark context's environment, which all threads share


class WorkerError(MlprojectError):
    """A job failed by what a version did in its workers, or by their machine."""

    def __init__(self, fault: Fault, message: str) -> None:
        super().__init__(message)
        self.fault = fault


@contextmanager
def environment_of(spark: SparkSession, version: Version) -> Iterator[None]:
    """Gives the functions built in the block worker processes of their own.

    Versions with the engine onnxruntime share theirs: their code is private to each, they import no
    framework, and what the one has imported the next finds. No other version shares processes.
    Spark pools its Python workers by executable and environment.
    Source: Spark, SparkEnv.createPythonWorker.
    """
    engine = _engine(version)
    owner = engine if engine == ONNXRUNTIME else version.model_id
    context = spark.sparkContext
    # Spark sets OMP_NUM_THREADS to it, and nothing of TensorFlow's. Source: SPARK-28843
    cores = context.getConf().get("spark.task.cpus", "1")
    own = {"TF_NUM_INTRAOP_THREADS": cores, "MLPROJECT_WORKERS": owner}
    with _context_lock:
        before = context.environment
        # Another dictionary: a thread that builds a function meanwhile goes through this one.
        context.environment = {**before, **ENVIRONMENT, **own}
        try:
            yield
        finally:
            context.environment = before


@cache
def _engine(version: Version) -> str | None:
    """The engine that a version names, which never changes; older ones name none."""
    flavor = version_files.read_model(version).flavors.get("python_function", {})
    return (flavor.get("config") or {}).get("engine")


def prepare(spark: SparkSession, version: Version) -> None:
    """Begins to start a worker process of a version, once in a session."""
    with environment_of(spark, version):
        context = spark.sparkContext
        session = (context.applicationId, context.environment["MLPROJECT_WORKERS"])
        if session not in _prepared:
            _prepared.add(session)
            spark_start.begin_workers(context)


def batch_settings(spark: SparkSession) -> dict[str, str]:
    """The SQL settings of jobs in which a version predicts: large batches for tasks with a GPU.

    On a cluster such tasks have the resource `gpu`; Spark's local mode has no resources. Values
    that are not ours, as of spark-defaults, stay.
    """
    context = spark.sparkContext
    gpus = float(context.getConf().get("spark.task.resource.gpu.amount", "0") or 0)
    if not gpus and not (spark_settings.is_local(str(context.master)) and inference.cuda_devices()):
        return {}
    ours = spark_settings.BLOBS
    return {key: size for key, size in GPU_BATCHES.items() if spark.conf.get(key) == ours[key]}


@contextmanager
def supervised(
    spark: SparkSession,
    timeout_s: float = math.inf,
    on_progress: Callable[[], None] = lambda: None,
) -> Iterator[None]:
    """Raises faults of workers in the jobs that this thread starts in the block as errors.

    Jobs of which no task ends for `timeout_s` seconds are cancelled. `on_progress` is called in
    another thread when one has ended, and while all wait for a free slot.

    Raises:
        WorkerError: A version's code raised (the message is the exception's last line), a worker
            process died, no task ended in time, or the machine failed.
        MissingFilesError: A data file that a job reads is gone.
    """
    context, hung, ended = spark.sparkContext, threading.Event(), threading.Event()
    group = f"mlproject-{uuid.uuid4()}"
    before: Any = context.getLocalProperty("spark.jobGroup.id")
    context.setLocalProperty("spark.jobGroup.id", group)
    jobs = (context, group, timeout_s, on_progress)
    watch = threading.Thread(target=_watch, args=(*jobs, hung, ended))
    watch.start()
    try:
        yield
    except (Py4JJavaError, PySparkException) as error:
        if hung.is_set():
            raise WorkerError("hung", f"no task ended in {timeout_s:g} s") from error
        known = _known_fault(type(error).__name__, str(error))
        if known is None:
            raise
        raise known from error
    finally:
        ended.set()
        watch.join()
        context.setLocalProperty("spark.jobGroup.id", before)


def _known_fault(kind: str, message: str) -> MlprojectError | None:
    """The fault that caused an error of Spark; None for another error."""
    if any(crash in message for crash in CRASHES):
        return WorkerError("crashed", "a worker process died")
    if NOT_WRITTEN in message:
        reason = message.split(NOT_WRITTEN, 1)[1].splitlines()[0]
        return WorkerError("machine", f"predictions cannot be written ({reason})")
    if kind == "PythonException" or RAISES in message:
        return WorkerError(outages.fault_of(message), _last_line(message))
    if any(missing in message for missing in MISSING):
        return MissingFilesError(
            "Data files that a table of the lake names are gone. Restore them, or run ingest "
            "into a new lake"
        )
    of_jvm = outages.jvm_fault_of(message)
    return WorkerError("machine", of_jvm) if of_jvm else None


def _watch(
    context: SparkContext,
    group: str,
    timeout_s: float,
    on_progress: Callable[[], None],
    hung: threading.Event,
    ended: threading.Event,
) -> None:
    """Cancels the jobs of a group once no task has ended for too long.

    A cancelled task's worker process is destroyed. Source: Spark, PythonRunner.MonitorThread.
    """
    seen: list[tuple[int, int, int]] = []
    since = time.monotonic()
    while not ended.wait(POLL_S):
        try:
            now = _progress(context, group)
        except (Py4JError, OSError):  # the JVM has died: the job's own call raises that
            return
        if not now or now != seen:
            seen, since = now, time.monotonic()
            on_progress()
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
            found_stage = tracker.getStageInfo(stage)
            if found_stage and found_stage.numActiveTasks:  # not one that waits for a free slot
                found.append((job, stage, found_stage.numCompletedTasks))
    return sorted(found)


def _last_line(message: str) -> str:
    """The exception itself out of a worker's traceback."""
    lines = [line for line in message.splitlines() if line.strip()]
    start = next((i for i, line in enumerate(lines) if line.startswith("Traceback")), 0)
    own = [line for line in lines[start + 1 :] if not line.startswith((" ", "\t"))]
    return own[0] if own else lines[0]
