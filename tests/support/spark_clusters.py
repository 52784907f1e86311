"""A standalone Spark cluster of processes on this machine, whose workers have made-up GPUs."""

import contextlib
import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pyspark

from mlproject.integrations import java
from tests.support.fresh_processes import users_environment

STARTED_S = 60  # in which the master and its workers must have started
CLASSES = "org.apache.spark.deploy"
QUICK = ("-Xmx256m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC")  # JVMs of a few seconds


class Cluster:
    """A master and its workers, each with the executors that it starts in a process group."""

    def __init__(self, folder: Path, cores: int, *, scala: str = "2.13") -> None:
        self.folder, self.cores = folder, cores
        # Workers launch executors by a script's rules, which look for the build folders of Spark.
        self.environment = {"SPARK_SCALA_VERSION": scala} if scala else {}
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self._start("master", "master.Master", "--port", "0")
        self.url = _logged(folder / "master.log", r"spark://127\.0\.0\.1:\d+")

    def start_worker(self, name: str, addresses: Sequence[str]) -> None:
        """Starts a worker whose GPUs have these addresses."""
        # Source: Spark, Custom Resource Scheduling: a script that prints one line of JSON
        script = self.folder / f"{name}.sh"
        found = json.dumps({"name": "gpu", "addresses": list(addresses)})
        script.write_text(f"#!/bin/sh\necho '{found}'\n")
        script.chmod(0o755)
        resources = {"amount": len(addresses), "discoveryScript": script}
        defaults = (f"spark.worker.resource.gpu.{k} {v}\n" for k, v in resources.items())
        (self.folder / f"{name}.conf").write_text("".join(defaults))
        given = ("--cores", str(self.cores), "--memory", "2g")
        given += ("--work-dir", str(self.folder / name))
        given += ("--properties-file", str(self.folder / f"{name}.conf"))
        self._start(name, "worker.Worker", *given, self.url)
        _logged(self.folder / f"{name}.log", "Successfully registered with master")

    def kill(self, name: str) -> None:
        """Kills a process, its executors and their workers, as kill -9 does."""
        process = self.processes.pop(name)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(timeout=30)

    def executors(self) -> int:
        """How many processes run as executors."""
        found = 0
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):  # it has ended
                mine = (process / "cwd").readlink().is_relative_to(self.folder)
                found += (
                    mine and b"CoarseGrainedExecutorBackend" in (process / "cmdline").read_bytes()
                )
        return found

    def stop(self) -> None:
        """Ends all."""
        for process in reversed(self.processes.values()):
            process.terminate()
        for process in self.processes.values():
            process.wait(timeout=30)

    def _start(self, name: str, kind: str, *words: str) -> None:
        home = java.home()
        program = str(home / "bin" / "java") if home else "java"
        jars = Path(pyspark.__file__).parent / "jars"
        command = [program, "-cp", f"{jars}/*", *QUICK, f"{CLASSES}.{kind}"]
        given = ["--host", "127.0.0.1", "--webui-port", "0", *words]
        environment = users_environment() | {"SPARK_HOME": str(jars.parent)} | self.environment
        environment |= {"JAVA_HOME": str(home)} if home else {}
        with (self.folder / f"{name}.log").open("wb") as log:
            self.processes[name] = subprocess.Popen(
                [*command, *given],
                env=environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )


@contextlib.contextmanager
def cluster(
    folder: Path, workers: Sequence[Sequence[str]], cores: int, *, scala: str = "2.13"
) -> Iterator[Cluster]:
    """A cluster whose processes end with the block; its workers are `worker0` and so on.

    Args:
        folder: Where logs and scripts go.
        workers: The addresses of the GPUs of each worker.
        cores: Cores of each worker.
        scala: SPARK_SCALA_VERSION of its workers; without it no executor starts.
    """
    made = Cluster(folder, cores, scala=scala)
    try:
        for number, addresses in enumerate(workers):
            made.start_worker(f"worker{number}", addresses)
        yield made
    finally:
        made.stop()


def with_defaults(folder: Path, settings: Mapping[str, object]) -> dict[str, str]:
    """The environment of a driver with these settings, which lie in a new folder."""
    folder.mkdir()
    lines = (f"{key} {value}\n" for key, value in settings.items())
    (folder / "spark-defaults.conf").write_text("".join(lines))
    return {"SPARK_CONF_DIR": str(folder)}


def _logged(log: Path, pattern: str) -> str:
    """The part of the log that matches; the test fails when it does not say it in time."""
    end = time.monotonic() + STARTED_S
    while time.monotonic() < end:
        found = re.search(pattern, log.read_text(errors="replace"))
        if found:
            return found[0]
        time.sleep(0.2)
    raise AssertionError(f"{log} has no {pattern!r}: {log.read_text(errors='replace')[-2000:]}")
