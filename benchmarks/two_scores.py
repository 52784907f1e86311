"""How much is computed twice when several commands score one version at once.

    python benchmarks/two_scores.py

Commands start together and score the same images with a version that takes a fixed time for each
one. An image is computed in vain when another command has committed it first.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import scratch


def main() -> None:
    """Measures and prints a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=400, help="drawn photos")
    parser.add_argument("--batch_images", type=int, default=40, help="images of a micro-batch")
    parser.add_argument("--pause_s", type=float, default=0.05, help="seconds for each image")
    parser.add_argument("--commands", default="1,2,3", help="how many at once")
    parser.add_argument("--repetitions", type=int, default=3)
    arguments = parser.parse_args()
    # One task slot for each command, so that each has a core of its own as far as there are any.
    os.environ.update(PYTHONPATH=scratch.PYTHONPATH, SPARK_MASTER="local[1]")
    counts = [int(one) for one in arguments.commands.split(",")]
    print(
        f"{arguments.images} images, micro-batches of {arguments.batch_images}, "
        f"{arguments.pause_s} s an image. {scratch.machine(('pyspark', 'deltalake'))} Medians of "
        f"{arguments.repetitions}.\n\n| commands at once | computed in vain | most | seconds |\n"
        "|---|---|---|---|"
    )
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{folder}/mlflow.db"
        prepare(folder, arguments.images)
        for count in counts:
            found = [
                measure(folder, count, arguments.batch_images, arguments.pause_s)
                for _ in range(arguments.repetitions)
            ]
            vain = [one for one, _ in found]
            seconds = statistics.median(one for _, one in found)
            print(f"| {count} | {statistics.median(vain):g} | {max(vain)} | {seconds:.1f} |")


def prepare(folder: Path, images: int) -> None:
    """Ingests drawn photos."""
    from tests.conftest import photos

    photos(folder / "photos", images)
    scratch.run_command(folder, "ingest", "--source", "photos")


def measure(folder: Path, count: int, batch_images: int, pause_s: float) -> tuple[int, float]:
    """Images that were computed in vain, and seconds until the last command has ended."""
    model = scratch.last_line(folder, "--register", str(pause_s), file=__file__)
    words = [sys.executable, "-m", "pipelines.score", "--model", model, "--log", "json"]
    words += ["--batch_images", str(batch_images)]
    began = time.monotonic()
    commands = [
        subprocess.Popen(words, cwd=folder, stdout=subprocess.PIPE, text=True) for _ in range(count)
    ]
    outputs = [command.communicate()[0] for command in commands]
    seconds = time.monotonic() - began
    failed = [output for command, output in zip(commands, outputs, strict=True) if command.poll()]
    if failed:
        raise SystemExit(failed[0])
    results = [json.loads(output.strip().splitlines()[-1]) for output in outputs]
    print(model, [(one["images"], one["discarded"]) for one in results], file=sys.stderr)
    return sum(one["discarded"] for one in results), seconds


def register(pause_s: float) -> None:
    """Registers a version that sleeps for each image."""
    from tests.support.versions import register_devices

    print(register_devices("paused", pause_s=pause_s).uri)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--register"]:
        register(float(sys.argv[2]))
    else:
        main()
