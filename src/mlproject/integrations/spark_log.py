"""The log of Spark's JVM, and what it says about a session that did not start or ended."""

import atexit
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

# It logs what a standalone master says about each executor.
_TOLD = "org.apache.spark.deploy.client.StandaloneAppClient$ClientEndpoint"

_logs: list[Path] = []  # of the JVM of this process, one at most


def new() -> Path:
    """The log of a new JVM of this process, in a folder of its own, which the process removes."""
    remove()
    _logs.append(Path(tempfile.mkdtemp(prefix="mlproject-spark-")) / "log.txt")
    return _logs[0]


def keep() -> str:
    """The path of the log, which stays: a message names it. Empty where there is none."""
    return str(_logs.pop()) if _logs else ""


@atexit.register
def remove() -> None:
    """Removes the log."""
    while _logs:
        shutil.rmtree(_logs.pop().parent, ignore_errors=True)


def log_executors(jvm: Any) -> None:
    """Has the JVM log how executors of a standalone cluster ended."""
    log4j = jvm.org.apache.logging.log4j
    log4j.core.config.Configurator.setLevel(_TOLD, log4j.Level.INFO)


def text() -> str:
    """What the JVM has printed; empty where this process has not started it."""
    files = [log for log in _logs if log.is_file()]
    return "".join(log.read_text(encoding="utf-8", errors="replace") for log in files)


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
