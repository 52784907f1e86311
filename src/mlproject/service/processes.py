"""A process, as another one can look for it: where it runs, and whether it has ended."""

import os
import socket
from dataclasses import dataclass
from functools import cache
from pathlib import Path

# Source: Linux, proc(5) and pid_namespaces(7). Numbers of processes are unique in such a namespace.
BOOT, NAMESPACE = Path("/proc/sys/kernel/random/boot_id"), Path("/proc/self/ns/pid")


@dataclass(frozen=True, slots=True)
class Process:
    """A process, and where its number counts."""

    host: str
    """Name of its machine or container."""
    space: str
    """Boot and namespace that its number belongs to; empty = not known, as outside Linux."""
    pid: int
    """Its number."""


def this_process() -> Process:
    """The process that calls this."""
    return Process(socket.gethostname(), _space(), os.getpid())


def has_ended(process: Process) -> bool:
    """Whether another process has ended for certain; false where that cannot be seen from here.

    One with the number of this process was an earlier one, as in a container that starts again.
    """
    here = this_process()
    if not here.space or process.space != here.space:
        return False
    if process.pid == here.pid:
        return True
    try:
        os.kill(process.pid, 0)
    except ProcessLookupError:
        return True
    except OSError:  # another user's
        return False
    return False


@cache
def _space() -> str:
    try:
        return f"{BOOT.read_text().strip()} {NAMESPACE.readlink()}"
    except OSError:
        return ""
