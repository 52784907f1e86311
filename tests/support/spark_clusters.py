"""A standalone Spark cluster of processes on this machine, whose workers have made-up GPUs."""

import contextlib
import json
import re
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyspark

from mlproject.integrations import java
from tests.support.fresh_processes import users_environment

STARTED_S = 60  # in which the master and its workers must have started
CLASSES = "org.apache.spark.deploy"
QUICK = ("-Xmx256m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC")  # JVMs of a few seconds


@contextlib.contextmanager
def cluster(folder: Path, workers: Sequence[Sequence[str]], cores: int) -> Iterator[str]:
    """The URL of the master; its processes end with the block.

    Args:
        folder: Where logs and scripts go.
        workers: The addresses of the GPUs of each worker.
        cores: Cores of each worker.
    """
    started = []
    try:
        started.append(_start(folder, "master", "master.Master", "--port", "0"))
        url = _logged(folder / "master.log", r"spark://127\.0\.0\.1:\d+")
        for number, addresses in enumerate(workers):
            name = f"worker{number}"
            # Source: Spark, Custom Resource Scheduling: a script that prints one line of JSON
            script = folder / f"{name}.sh"
            found = json.dumps({"name": "gpu", "addresses": list(addresses)})
            script.write_text(f"#!/bin/sh\necho '{found}'\n")
            script.chmod(0o755)
            resources = {"amount": len(addresses), "discoveryScript": script}
            defaults = (f"spark.worker.resource.gpu.{k} {v}\n" for k, v in resources.items())
            (folder / f"{name}.conf").write_text("".join(defaults))
            given = ("--cores", str(cores), "--memory", "2g", "--work-dir", str(folder / name))
            given += ("--properties-file", str(folder / f"{name}.conf"))
            started.append(_start(folder, name, "worker.Worker", *given, url))
        for number in range(len(workers)):
            _logged(folder / f"worker{number}.log", "Successfully registered with master")
        yield url
    finally:
        for process in reversed(started):
            process.terminate()
        for process in started:
            process.wait(timeout=30)


def _start(folder: Path, name: str, kind: str, *words: str) -> subprocess.Popen[bytes]:
    home = java.home()
    program = str(home / "bin" / "java") if home else "java"
    jars = Path(pyspark.__file__).parent / "jars"
    command = [program, "-cp", f"{jars}/*", *QUICK, f"{CLASSES}.{kind}"]
    given = ["--host", "127.0.0.1", "--webui-port", "0", *words]
    environment = users_environment()
    # Workers launch executors by a script's rules, which look for the build folders of Spark.
    environment |= {"SPARK_SCALA_VERSION": "2.13", "SPARK_HOME": str(jars.parent)}
    environment |= {"JAVA_HOME": str(home)} if home else {}
    with (folder / f"{name}.log").open("wb") as log:
        return subprocess.Popen(
            [*command, *given], env=environment, stdout=log, stderr=subprocess.STDOUT
        )


def _logged(log: Path, pattern: str) -> str:
    """The part of the log that matches; the test fails when it does not say it in time."""
    end = time.monotonic() + STARTED_S
    while time.monotonic() < end:
        found = re.search(pattern, log.read_text(errors="replace"))
        if found:
            return found[0]
        time.sleep(0.2)
    raise AssertionError(f"{log} has no {pattern!r}: {log.read_text(errors='replace')[-2000:]}")
