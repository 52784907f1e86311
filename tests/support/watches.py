"""Watches as processes of their own, and all that they print."""

import json
import os
import signal
import subprocess
import threading
import time

PATIENCE_S = 240  # of a busy machine, below the interval of watches that are to wait


class Watch:
    """A watch, and all lines that it printed."""

    def __init__(self, process):
        self.process, self.lines = process, []
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self):
        for line in self.process.stdout:
            self.lines.append(line.strip())

    def until(self, part, count=1):
        """Waits until so many lines hold this part."""

        def is_true():
            ended = self.process.poll() is not None
            if ended:  # its last lines are read
                self.reader.join(10)
            found = sum(part in line for line in self.lines) >= count
            assert found or not ended, self.output()
            return found

        wait(is_true, self.output)

    def output(self):
        return "\n".join([*self.lines, f"exit status {self.process.poll()}"])

    def javas(self):
        return pgrep("-g", str(self.process.pid), "java")

    def sparks(self):
        """The JVM, the daemon of each kind of Python worker, and the workers that they forked."""
        found = level = self.javas()
        while level := [child for parent in level for child in pgrep("-P", str(parent))]:
            found = [*found, *level]
        return found

    def objects(self):
        """What it has logged with `--log json`; lines of libraries are left out."""
        return [json.loads(line) for line in [*self.lines] if line.startswith("{")]

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        assert 0 == self.process.wait(60), self.output()
        self.until("Stopped after ")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


def pgrep(*words):
    found = subprocess.run(["pgrep", *words], capture_output=True, check=False)
    return [int(word) for word in found.stdout.split()]


def wait(is_true, what):
    until = time.monotonic() + PATIENCE_S
    while not is_true():
        assert time.monotonic() < until, what()
        time.sleep(0.2)
