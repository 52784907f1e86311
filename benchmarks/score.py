"""Images a second of `score` against a bare loop over the same files, network and decoding.

    python benchmarks/score.py --photos FOLDER --framework torch --weights FILE --labels FILE

Everything is measured in one run on one machine, the bare loop before and after: ratios count.
The photos are repeated until there are enough, each copy different by appended bytes.

- bare loop: a process a core; each imports the framework, loads the version, reads its files, and
  lets the version predict 32 at a time. "Whole" is from the start of the processes, "loop" from the
  first image to the last.
- cold: a new Spark session and `score`. Warm: `score` of a second version in that session, whose
  workers are new: they import the framework and load the version.
"""

import argparse
import json
import multiprocessing
import os
import platform
import subprocess
import sys
import tempfile
import time
from importlib import metadata
from pathlib import Path

PROJECT = Path(__file__).parents[1]
sys.path[:0] = [str(PROJECT / "src"), str(PROJECT)]
CORES = len(os.sched_getaffinity(0))


def main() -> None:
    """Measures, prints a table, and writes it to the file `--out`."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--photos", type=Path, required=True, help="folder of photos")
    parser.add_argument("--images", type=int, default=1000, help="at least so many")
    parser.add_argument("--framework", choices=("keras", "torch"), required=True)
    parser.add_argument("--weights", default="imagenet", help="imagenet, or a weights file")
    parser.add_argument("--labels", default="", help="as in register")
    parser.add_argument("--out", type=Path, help="file for the table, in Markdown")
    arguments = parser.parse_args()
    for name in ("weights", "labels"):  # the commands run in another folder
        given = Path(getattr(arguments, name))
        if given.is_file():
            setattr(arguments, name, str(given.resolve()))
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        count = repeat(arguments.photos, folder / "photos", arguments.images)
        os.environ |= {
            "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db",
            "PYTHONPATH": f"{PROJECT / 'src'}{os.pathsep}{PROJECT}",
        }
        run_command(folder, "ingest", "--source", "photos")
        for _ in range(2):
            given = ("--weights", arguments.weights, "--labels", arguments.labels)
            run_command(folder, "register", "--framework", arguments.framework, *given)
        first = bare(folder / "photos")
        spark = json.loads(last_line(folder, "--spark"))
        last = bare(folder / "photos")
        table = table_text(arguments, count, folder, [first, last], spark)
    print(table)
    if arguments.out:
        arguments.out.write_text(table, encoding="utf-8")


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


def run_command(folder: Path, name: str, *arguments: str) -> None:
    """Runs a command of the project in `folder`."""
    command = [sys.executable, "-m", f"pipelines.{name}", *arguments]
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)


def last_line(folder: Path, *arguments: str, file: str = __file__) -> str:
    """The last line that a benchmark prints, run in `folder` as a new process."""
    command = [sys.executable, str(Path(file).resolve()), *arguments]
    done = subprocess.run(command, cwd=folder, check=True, stdout=subprocess.PIPE, text=True)
    return done.stdout.strip().splitlines()[-1]


def bare(photos: Path) -> dict[str, float]:
    """Seconds of the bare loop: whole, and of the slower process's loop alone."""
    from mlproject.scoring.workers import ENVIRONMENT

    os.environ.update(ENVIRONMENT)
    files = sorted(photos.iterdir())
    began = time.monotonic()
    with multiprocessing.get_context("spawn").Pool(CORES) as pool:
        loops = pool.map(bare_loop, [files[core::CORES] for core in range(CORES)], chunksize=1)
    return {"whole": time.monotonic() - began, "loop": max(loops)}


def bare_loop(files: list[Path]) -> float:
    """One process's share: seconds from its first image to its last."""
    import mlflow
    import pandas as pd

    model = mlflow.pyfunc.load_model("models:/photos/1").unwrap_python_model()
    began = time.monotonic()
    for start in range(0, len(files), 32):
        contents = [file.read_bytes() for file in files[start : start + 32]]
        model.predict(None, pd.DataFrame({"content": contents}))
    return time.monotonic() - began


def measure_spark() -> None:
    """Prints seconds of a cold and of a warm `score`, as JSON."""
    began = time.monotonic()
    from mlflow import MlflowClient

    from mlproject.integrations.spark_session import session
    from mlproject.lake import location
    from mlproject.scoring import scorer
    from mlproject.versions import registry

    client, lake = MlflowClient(), location.locate("lake")
    with session("benchmark") as spark:
        started = time.monotonic() - began
        scorer.score_pending(spark, lake, registry.resolve(client, "models:/photos/1"))
        cold = time.monotonic() - began
        warm = scorer.score_pending(spark, lake, registry.resolve(client, "models:/photos/2"))
    print(json.dumps({"session": started, "cold": cold, "warm": warm.seconds}))


def facts(packages: tuple[str, ...], loops: list[float], session: float) -> str:
    """The machine, its packages, how far apart the bare loops were, and what a session costs."""
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in packages)
    return (
        f"{CORES} cores ({platform.machine()}), Python {platform.python_version()}, {versions}. "
        f"Bare loop before and after: {max(loops) / min(loops):.2f} times apart. "
        f"Of the cold run {session:.1f} s are imports and the session."
    )


def table_text(
    arguments: argparse.Namespace,
    count: int,
    folder: Path,
    loops: list[dict[str, float]],
    spark: dict[str, float],
) -> str:
    """The measurements as a Markdown table, with the machine's facts."""
    size = sum(path.stat().st_size for path in (folder / "photos").iterdir()) / count
    whole = min(loop["whole"] for loop in loops)
    rows = [
        ("bare loop, loop only", min(loop["loop"] for loop in loops)),
        ("bare loop, whole", whole),
        ("score, cold (new session)", spark["cold"]),
        ("score, warm (new version)", spark["warm"]),
    ]
    names = ("tensorflow", "keras") if arguments.framework == "keras" else ("torch", "torchvision")
    lines = [
        f"# score: {arguments.framework}, {count} photos of {size / 1000:.0f} kB",
        "",
        facts((*names, "pyspark", "mlflow"), [loop["whole"] for loop in loops], spark["session"]),
        "",
        "| | seconds | images/s | of the bare loop, whole |",
        "|---|---|---|---|",
        *(f"| {name} | {s:.1f} | {count / s:.1f} | {whole / s:.2f} |" for name, s in rows),
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    if sys.argv[1:] == ["--spark"]:
        measure_spark()
    else:
        main()
