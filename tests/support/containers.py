"""Processes in what a container may be: a user without a name, on a read-only system."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.fresh_processes import users_environment

UID = "12345"  # in no /etc/passwd
# In a namespace of its own, of which only the folder `$0` can be written.
READ_ONLY = """
set -e
mount --rbind / "$0/root"
mount -o remount,bind,ro "$0/root"
mount --bind "$0" "$0/root$0"
exec chroot "$0/root" sh -c 'cd "$0" && exec "$@"' "$0" "$@"
"""


def require_namespaces(*options: str) -> None:
    """Skips the test where this machine lets nobody make such namespaces."""
    if shutil.which("unshare") is None:
        pytest.skip("needs unshare, of util-linux")
    words = ["unshare", "--user", *options, "true"]
    if subprocess.run(words, capture_output=True, check=False).returncode:
        pytest.skip(f"this machine refuses {' '.join(words)}")


def run_in_container(folder: Path, *words: str, **environment: str) -> str:
    """What `python WORDS` prints; its user has no name and no home, and writes `folder` only."""
    user = ("--map-user", UID, "--map-group", UID, "--mount", "--keep-caps")
    require_namespaces(*user)
    for name in ("root", "tmp"):
        (folder / name).mkdir(exist_ok=True)
    known = users_environment()
    for name in ("HOME", "LOGNAME", "USER"):
        known.pop(name, None)
    done = subprocess.run(
        ["unshare", "--user", *user, "sh", "-c", READ_ONLY, str(folder), sys.executable, *words],
        env={"TMPDIR": str(folder / "tmp"), **known, **environment},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert 0 == done.returncode, done.stdout + done.stderr
    return done.stdout + done.stderr
