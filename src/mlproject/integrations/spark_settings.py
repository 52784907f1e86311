"""The settings of new Spark sessions, and what the person has set."""

import os
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

from pyspark import SparkConf, SparkContext

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

QUIET = {
    # The default's words, and the key of an account of Azure. Source: Spark, spark.redaction.regex
    "spark.redaction.regex": "(?i)secret|password|token|access[.]?key|account[.]key",
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
    "spark.databricks.delta.snapshotPartitions": "2",  # the default 50 costs seconds per commit
}

# Lines of spark-defaults.conf, such as "KEY VALUE", "KEY=VALUE" or "# a comment".
_LINES = re.compile(r"^[ \t]*([^#=\s][^=\s]*)[ \t=]+(.*\S)", re.MULTILINE)

# Options of spark-submit that stand for a setting that is read here.
_OPTIONS = {"--master": "spark.master", "--repositories": "spark.jars.repositories"}


def submitted() -> bool:
    """Whether spark-submit has started this process, and its JVM."""
    return "PYSPARK_GATEWAY_PORT" in os.environ


def given() -> dict[str, str]:
    """What the person has set: for spark-submit, or in Spark's files and PYSPARK_SUBMIT_ARGS."""
    if submitted():
        SparkContext._ensure_initialized()  # the JVM knows
        return dict(SparkConf().getAll())
    words = shlex.split(os.environ.get("PYSPARK_SUBMIT_ARGS", ""))
    # `--master X` is `--master=X` too.
    words = [
        part for word in words for part in (word.split("=", 1) if word[:2] == "--" else [word])
    ]
    options = list(pairwise(words))
    files = [Path(value) for option, value in options if option == "--properties-file"][-1:]
    folder = conf_folder()
    if folder and (not files or "--load-spark-defaults" in words):
        files.insert(0, folder / "spark-defaults.conf")
    found = dict[str, str]()
    for file in files:
        if file.is_file():
            found |= dict(_LINES.findall(file.read_text(encoding="utf-8")))
    for option, value in options:
        if option in _OPTIONS:
            found[_OPTIONS[option]] = value
        elif option in ("--conf", "-c") and "=" in value:
            key, _, word = value.partition("=")
            found[key] = word
    return found


def added_to(given: Mapping[str, str], own: Mapping[str, str]) -> SparkConf:
    """The settings of a session: ours and its `own`, unless the person has `given` others."""
    conf = SparkConf(loadDefaults=False)
    for key, value in {**DELTA, **BLOBS, **QUIET, **own}.items():
        if key not in given:
            conf.set(key, value)
    return conf


def master(found: Mapping[str, str]) -> str:
    """The master of a new session, where `found` is what the person has set."""
    return os.environ.get("SPARK_MASTER") or found.get("spark.master") or "local[*]"


def is_local(master: str) -> bool:
    """Whether tasks run in the JVM of the driver, and workers on its machine."""
    return bool(re.match(r"local(\[|$)", master))


def conf_folder() -> Path | None:
    """The folder of Spark's configuration, which is on the class path; None = there is none."""
    home = os.environ.get("SPARK_HOME")
    named = os.environ.get("SPARK_CONF_DIR") or (f"{home}/conf" if home else "")
    return Path(named) if named and Path(named).is_dir() else None


def local(
    master: str, classes: Path | None, saved: Path | None, options: Sequence[str]
) -> dict[str, str]:
    """The settings of a session on this machine, which uses an archive of classes or saves one.

    `options` are more of its JVM.
    """
    package = str(Path(__file__).parents[2])
    paths = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    if package not in paths:  # the daemon imports this package
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [package, *paths]))
    options = [LOCAL["spark.driver.extraJavaOptions"], *options]
    if classes or saved:
        name = "SharedArchiveFile" if classes else "ArchiveClassesAtExit"
        options.append(f"'-XX:{name}={classes or saved}'")
    forked = FORKED if sys.platform == "linux" else {}
    driver = {"memory": f"{_heap(master)}m", "extraJavaOptions": " ".join(options)}
    return {**LOCAL, **forked, **{f"spark.driver.{key}": word for key, word in driver.items()}}


def _heap(master: str) -> int:
    """MiB of a local driver: for each slot a row group and a batch of large photos."""
    slots = re.match(r"local\[(\d+)", master)
    wanted = 1024 * max(2, int(slots[1]) if slots else os.cpu_count() or 1)
    return min(wanted, max(1024, memory() // 2 // 1024**2))  # Spark's own default is 1024


def memory(cgroups: Path = Path("/sys/fs/cgroup")) -> int:
    """Bytes of memory of this machine, or of the container if it has fewer.

    In a container its own group is mounted at the root. Source: cgroups(7), versions 1 and 2.
    """
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        with suppress(OSError, ValueError):  # none, or `max`
            limits.append(int((cgroups / name).read_text(encoding="utf-8")))
    return min(limits)
