"""Why a session of Spark does not start, waits or has ended: from its JVM's log, and its state."""

import os
import re
import sys
import tempfile
import time
from contextlib import suppress
from typing import IO, Any

# It logs what a standalone master says about each executor.
_TOLD = "org.apache.spark.deploy.client.StandaloneAppClient$ClientEndpoint"

EXECUTOR_WAIT_S = 20  # without an executor a session says so then; to start one takes some seconds

_logs: list[IO[bytes]] = []  # of the JVM of this process, one at most


def new() -> IO[bytes]:
    """The log of a new JVM of this process: a file without a name, which ends with the process."""
    while _logs:
        _logs.pop().close()
    _logs.append(tempfile.TemporaryFile())  # noqa: SIM115 - as long as the JVM
    return _logs[0]


def saved() -> str:
    """A sentence that names a file with the log, which stays; empty where there is none."""
    if not _logs:
        return ""
    with tempfile.NamedTemporaryFile(
        "w", encoding="utf-8", prefix="mlproject-spark-", suffix=".log", delete=False
    ) as file:
        file.write(text())
    return f" Log of Spark: {file.name!r}"


def log_executors(jvm: Any) -> None:
    """Has the JVM log how executors of a standalone cluster ended."""
    log4j = jvm.org.apache.logging.log4j
    log4j.core.config.Configurator.setLevel(_TOLD, log4j.Level.INFO)


def text() -> str:
    """What the JVM has printed; empty where this process has not started it."""
    # The JVM writes at the position of the file.
    files = [(log.fileno(), os.fstat(log.fileno()).st_size) for log in _logs]
    return "".join(os.pread(file, size, 0).decode(errors="replace") for file, size in files)


def reason() -> str:
    """Why a session did not start, or ended, in a clause; empty = the log does not say.

    Source: Spark 4.2, StandaloneAppClient and StandaloneSchedulerBackend.
    """
    log = text()
    if "All masters are unresponsive" in log:
        masters = " and ".join(dict.fromkeys(re.findall(r"connect to master (\S+)", log)))
        causes = re.findall(
            r"^Caused by: (?:[\w.$]+: )?(?:.*error\(\S+\): )?(.*)", log, re.MULTILINE
        )
        return f"the master {masters} does not answer ({causes[-1] if causes else 'no reason'})"
    removed = re.search(r"Master removed our application: (.*)", log)
    if removed:
        ends = re.findall(r"Executor updated: \S+ is now (?:EXITED|FAILED|LOST) \((.*)\)", log)
        last = f"its executors ended, {len(ends)} in all: {ends[-1]}" if ends else removed[1]
        return f"the master has removed it, as {last}"
    return ""


def say_what_is_missing(spark: Any) -> None:
    """Says once that no executor has come, which Spark only logs, for as long as it takes."""
    time.sleep(EXECUTOR_WAIT_S)
    context: Any = spark.sparkContext
    with suppress(Exception):  # the session has ended
        if context._jsc.sc().getExecutorMemoryStatus().size() > 1:  # the driver is one
            return
        conf = context.getConf()
        asked = [
            f"{key}={size}"
            for key in ("cores", "memory", "resource.gpu.amount")
            if (size := conf.get(f"spark.executor.{key}"))
        ]
        print(  # noqa: T201 - a wait
            f"Spark waits: {context.master} has given no executor in {EXECUTOR_WAIT_S} s "
            f"({', '.join(asked) or 'memory=1g'}). Does a worker have so much free?",
            file=sys.stderr,
        )
