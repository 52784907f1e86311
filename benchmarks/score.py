"""Seconds of `score` against bare loops over the same files, network and decoding.

    python benchmarks/score.py --photos FOLDER --framework torch --weights FILE --labels FILE

Everything is measured in one run on one machine, in turn, several times: ratios count. Each time is
that of whole processes, from their start to their end. The photos are repeated until there are
enough, each copy different by appended bytes.

- limit: a process a core; each reads its files, decodes them and runs the network in ONNX Runtime,
  8 images at a time, without MLflow, pandas and Spark.
- framework: a process a core; each loads a version with `engine=native` and lets it predict 32
  images at a time.
- cold: a new Spark session and `score` of a version. Warm: `score` of a second version in that
  session.
"""

import argparse
import importlib
import json
import multiprocessing
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
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
    parser.add_argument("--images", type=int, default=2000, help="at least so many")
    parser.add_argument("--repetitions", type=int, default=3, help="of each measurement")
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
        given = ("--weights", arguments.weights, "--labels", arguments.labels)
        for engine in ("onnxruntime", "onnxruntime", "native"):
            words = ("--framework", arguments.framework, "--engine", engine, *given)
            run_command(folder, "register", *words)
        seconds = defaultdict[str, list[float]](list)
        for _ in range(arguments.repetitions):
            for name in ("limit", "framework"):
                seconds[name].append(json.loads(last_line(folder, f"--{name}-loop")))
            shutil.rmtree(folder / "lake" / "predictions", ignore_errors=True)
            for name, value in json.loads(last_line(folder, "--spark")).items():
                seconds[name].append(value)
        table = table_text(arguments, count, folder, seconds)
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


def measure_loop(loop: Callable[[list[Path]], None]) -> None:
    """Prints the seconds that a process a core takes with its share of the photos."""
    from mlproject.scoring.workers import ENVIRONMENT

    os.environ.update(ENVIRONMENT)
    files = sorted(Path("photos").iterdir())
    began = time.monotonic()
    with multiprocessing.get_context("spawn").Pool(CORES) as pool:
        pool.map(loop, [files[core::CORES] for core in range(CORES)], chunksize=1)
    print(time.monotonic() - began)


def limit(files: list[Path]) -> None:
    """One process's share of the limit."""
    import onnxruntime

    [folder] = Path("version").glob("artifacts")
    sys.path.insert(0, str(folder))
    inference = importlib.import_module("inference")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(folder / "network.onnx", options)
    config = json.loads(Path("version/config.json").read_text(encoding="utf-8"))
    for start in range(0, len(files), config["batch_size"]):
        contents = [file.read_bytes() for file in files[start : start + config["batch_size"]]]
        images, _ = inference.decode_all(contents, config)
        session.run(None, {"images": images})


def framework(files: list[Path]) -> None:
    """One process's share of the framework's loop."""
    import mlflow
    import pandas as pd

    model = mlflow.pyfunc.load_model("models:/photos/3").unwrap_python_model()
    for start in range(0, len(files), 32):
        contents = [file.read_bytes() for file in files[start : start + 32]]
        model.predict(None, pd.DataFrame({"content": contents}))


def measure_limit() -> None:
    """As `measure_loop`, for the files of the first version."""
    import mlflow

    if not Path("version").is_dir():
        mlflow.artifacts.download_artifacts("models:/photos/1", dst_path="version")
        flavors = mlflow.models.Model.load("version").flavors
        config = json.dumps(flavors["python_function"]["config"])
        Path("version/config.json").write_text(config, encoding="utf-8")
    measure_loop(limit)


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
        f"Slowest and fastest bare loop: {max(loops) / min(loops):.2f} times apart. "
        f"Of the cold run {session:.1f} s are imports and the session."
    )


def table_text(
    arguments: argparse.Namespace, count: int, folder: Path, seconds: dict[str, list[float]]
) -> str:
    """The measurements as a Markdown table, with the machine's facts."""
    size = sum(path.stat().st_size for path in (folder / "photos").iterdir()) / count
    least = statistics.median(seconds["limit"])
    rows = {
        "limit: bare loop of ONNX Runtime": "limit",
        f"bare loop of {arguments.framework}": "framework",
        "score, cold (new session)": "cold",
        "score, warm (second version)": "warm",
    }
    names = ("tensorflow", "keras") if arguments.framework == "keras" else ("torch", "torchvision")
    packages, session = ("onnxruntime", *names, "pyspark", "mlflow"), seconds["session"]
    lines = [
        f"# score: {arguments.framework}, {count} photos of {size / 1000:.0f} kB",
        "",
        facts(packages, seconds["limit"], statistics.median(session)),
        f"Of {arguments.repetitions} repetitions: median, least and most seconds.",
        "",
        "| | seconds | least | most | images/s | of the limit |",
        "|---|---|---|---|---|---|",
    ]
    for title, name in rows.items():
        middle = statistics.median(seconds[name])
        spread = f"{min(seconds[name]):.1f} | {max(seconds[name]):.1f}"
        rate = f"{count / middle:.1f} | {least / middle:.2f}"
        lines.append(f"| {title} | {middle:.1f} | {spread} | {rate} |")
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    measurements = {
        "--limit-loop": measure_limit,
        "--framework-loop": lambda: measure_loop(framework),
        "--spark": measure_spark,
    }
    measurements.get("".join(sys.argv[1:]), main)()
