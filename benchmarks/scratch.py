"""What the benchmarks make and start in a scratch folder: photos, commands and processes."""

import os
import platform
import subprocess
import sys
import time
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

PROJECT = Path(__file__).parents[1]
FOLDERS = (PROJECT / "src", PROJECT, PROJECT / "benchmarks")
PYTHONPATH = os.pathsep.join(map(str, FOLDERS))
sys.path[:0] = map(str, FOLDERS)
CORES = len(os.sched_getaffinity(0))


def repeat(photos: Path, target: Path, least: int) -> int:
    """Copies photos until there are `least`, all different in bytes; returns how many."""
    files = sorted(path for path in photos.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg"))
    if not files:
        raise SystemExit(f"There is no .jpg or .jpeg file below {str(photos)!r}")
    target.mkdir()
    rounds = -(-least // len(files))
    for turn in range(rounds):
        for number, file in enumerate(files):
            content = file.read_bytes() + turn.to_bytes(4, "big")
            (target / f"{turn:04}-{number:05}.jpg").write_bytes(content)
    return rounds * len(files)


def run_command(folder: Path, name: str, *arguments: str) -> float:
    """Runs a command of the project in `folder`; gives back the seconds of its process."""
    command = [sys.executable, "-m", f"pipelines.{name}", *arguments]
    began = time.monotonic()
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - began


def one_thread() -> dict[str, str]:
    """The environment of a process that computes with one thread, as the workers of `score`."""
    from mlproject.scoring.workers import ENVIRONMENT

    return {**os.environ, **ENVIRONMENT}


def last_line(
    folder: Path, *arguments: str, file: str | Path, environment: Mapping[str, str] | None = None
) -> str:
    """The last line that a benchmark prints, run in `folder` as a new process."""
    command = [sys.executable, str(Path(file).resolve()), *arguments]
    done = subprocess.run(
        command, cwd=folder, env=environment, check=True, stdout=subprocess.PIPE, text=True
    )
    return done.stdout.strip().splitlines()[-1]


def machine(packages: tuple[str, ...]) -> str:
    """The machine and its packages, in a sentence."""
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in packages)
    return f"{CORES} cores ({_processor()}), Python {platform.python_version()}, {versions}."


def facts(packages: tuple[str, ...], loops: list[float]) -> str:
    """The machine, its packages, and how far apart the bare loops were."""
    apart = max(loops) / min(loops)
    return f"{machine(packages)} Slowest and fastest bare loop: {apart:.2f} times apart."


def _processor() -> str:
    """The name of the processor. Source: proc(5), cpuinfo."""
    file = Path("/proc/cpuinfo")
    lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{platform.machine()}, {names[0]}" if names else platform.machine()
