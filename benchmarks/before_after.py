"""Whole commands of an older release and of this checkout in turn: ingest, score, erase.

    python benchmarks/before_after.py --photos FOLDER --weights FILE.pth --labels FILE.txt

Each run makes a lake and a registry of its own in a scratch folder, and registers the weights as a
PyTorch version, which is not timed. Seconds are of whole processes, imports and Spark's start
included; the last column is the ratio of the medians.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

PROJECT = Path(__file__).parents[1]
STEPS = ("ingest", "ingest, nothing new", "score", "erase")


def main() -> None:
    """Runs both in turn and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", required=True, help="folder of image files, with sub-folders")
    parser.add_argument("--weights", required=True, help="of a MobileNetV2 in torch")
    parser.add_argument("--labels", required=True, help="a text file with one label per line")
    parser.add_argument("--commit", default="6eb5f63", help="the older release")
    parser.add_argument("--runs", type=int, default=2, help="runs of each")
    arguments = parser.parse_args()
    photos, weights, labels = (
        Path(path).resolve() for path in (arguments.photos, arguments.weights, arguments.labels)
    )
    with tempfile.TemporaryDirectory() as scratch:
        old = Path(scratch) / "old"
        git = ["git", "-C", str(PROJECT), "worktree"]
        subprocess.run([*git, "add", "--detach", str(old), arguments.commit], check=True)
        try:
            seconds: dict[Path, list[list[float]]] = {old: [], PROJECT: []}
            for number in range(arguments.runs):
                for checkout, runs in seconds.items():
                    folder = Path(scratch) / f"{checkout.name}-{number}"
                    folder.mkdir()
                    runs.append(measure(checkout, folder, photos, weights, labels))
        finally:
            subprocess.run([*git, "remove", "--force", str(old)], check=True)
    print("| step | before, s | after, s | ratio |\n|---|---|---|---|")
    for place, step in enumerate(STEPS):
        before, after = ([run[place] for run in seconds[one]] for one in (old, PROJECT))
        ratio = statistics.median(after) / statistics.median(before)
        shown = (", ".join(f"{value:.1f}" for value in runs) for runs in (before, after))
        print(f"| {step} | {' | '.join(shown)} | {ratio:.2f} |")


def measure(checkout: Path, folder: Path, photos: Path, weights: Path, labels: Path) -> list[float]:
    """Seconds of each step."""
    one = next(file for file in sorted(photos.rglob("*")) if file.is_file())
    ingest = ("ingest", "--source", str(photos), "--settle", "0")
    files = ("--weights", str(weights), "--labels", str(labels))
    commands = (
        ("register", "--framework", "torch", *files),
        ingest,
        ingest,
        ("score", "--model", "models:/photos/1"),
        ("erase", "--path", str(one)),
    )
    environment = {
        **os.environ,
        "PYTHONPATH": f"{checkout / 'src'}{os.pathsep}{checkout}",
        "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db",
    }
    found = []
    for name, *arguments in commands:
        command = [sys.executable, "-m", f"pipelines.{name}", *arguments]
        began = time.monotonic()
        with (folder / "log.txt").open("ab") as log:
            subprocess.run(command, cwd=folder, env=environment, check=True, stdout=log, stderr=log)
        found.append(time.monotonic() - began)
    return found[1:]


if __name__ == "__main__":
    main()
