"""What a server that is far away costs `ingest` and `score`, against Daft and Ray.

    pip install -r requirements-dev.txt -r benchmarks/requirements.txt
    python benchmarks/latency.py --server PATH_OF_VERSITYGW

Photos lie in a bucket of a server (versitygw where its program is named, else moto), behind a small
server that lets each request wait. Everything is measured in turn, each in a new process:

- ingest: the whole command, bytes inline, into a local lake.
- score: the images of a lake with `content=reference`, so that tasks fetch their bytes: the whole
  command, with a version that computes little.
- daft: `url.download` of the same objects, written to Parquet files. ray: `read_images`, the same;
  both without a hash and a table.
"""

import argparse
import io
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import scratch
from PIL import Image

WAITS_MS = (0, 30, 100)
SIDE = 170  # pixels of a drawn photo of noise, which takes about 27 kB

DAFT = """
import sys, daft
source, out = sys.argv[1:]
rows = daft.from_pydict({"url": open("urls.txt").read().split()})
rows = rows.with_column("content", rows["url"].download())
rows.write_parquet(out)
"""
RAY = """
import sys, os, ray, pyarrow.fs
source, out = sys.argv[1:]
ray.init(include_dashboard=False, log_to_driver=False, logging_level="error")
ray.data.DataContext.get_current().enable_progress_bars = False
files = pyarrow.fs.S3FileSystem(endpoint_override=os.environ["AWS_ENDPOINT_URL"])
ray.data.read_images(source.removeprefix("s3://"), filesystem=files).write_parquet(out)
"""


def main() -> None:
    """Measures, prints a table, and writes it to the file `--out`."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=500, help="photos of 27 kB, which are drawn")
    parser.add_argument("--repetitions", type=int, default=3, help="of each measurement")
    parser.add_argument("--server", default="", help="program of versitygw; empty = moto")
    parser.add_argument("--out", type=Path, help="file for the table, in Markdown")
    arguments = parser.parse_args()
    os.environ["PYTHONPATH"] = scratch.PYTHONPATH
    os.environ["TEST_S3_SERVER"] = arguments.server
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        seconds = measure(folder, arguments.images, arguments.repetitions)
    table = table_text(arguments.images, seconds)
    print(table)
    if arguments.out:
        arguments.out.write_text(table, encoding="utf-8")


def measure(folder: Path, images: int, repetitions: int) -> dict[str, dict[int, list[float]]]:
    """Seconds of each way, by milliseconds that a request waits."""
    from tests.support import s3_proxy, s3_servers

    ways: dict[str, Callable[[str], float]] = {
        "ingest": lambda name: scratch.run_command(
            folder, "ingest", "--source", "s3://photos/daily", "--lake", name, "--settle", "0"
        ),
        "score": lambda name: score(folder, name),
        "daft": lambda name: script(folder, DAFT, name),
        "ray": lambda name: script(folder, RAY, name),
    }
    seconds: dict[str, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    with s3_servers.chosen(folder) as (_, url):
        os.environ.update(s3_servers.KEYS, AWS_REGION="us-east-1", AWS_ENDPOINT_URL=url)
        s3_servers.client(url).create_bucket(Bucket="photos")
        contents = {f"daily/{number:05}.jpg": photo(number) for number in range(images)}
        s3_servers.put(url, "photos", **contents)
        urls = "\n".join(f"s3://photos/{name}" for name in contents)
        (folder / "urls.txt").write_text(urls)
        prepare_versions(folder)
        for turn in range(repetitions):
            for wait_ms in WAITS_MS:
                with s3_proxy.in_process(url, wait_s=wait_ms / 1000) as slow:
                    os.environ["AWS_ENDPOINT_URL"] = slow
                    for name, way in ways.items():
                        seconds[name][wait_ms].append(way(f"{name}-{turn}-{wait_ms}"))
                        print(name, wait_ms, seconds[name][wait_ms], file=sys.stderr)
    return seconds


def photo(number: int) -> bytes:
    """A JPEG of noise, different for each number."""
    noise = random.Random(number).randbytes(3 * SIDE * SIDE)  # noqa: S311 - no secrets
    out = io.BytesIO()
    Image.frombytes("RGB", (SIDE, SIDE), noise).save(out, "JPEG", quality=72)
    return out.getvalue()


def prepare_versions(folder: Path) -> None:
    """An MLflow store and a lake of references; its version is registered before each scoring."""
    os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{folder}/mlflow.db"
    words = ("--source", "s3://photos/daily", "--settle", "0", "--content", "reference")
    scratch.run_command(folder, "ingest", "--lake", "references", *words)


def score(folder: Path, name: str) -> float:
    """Seconds of the command, with a version that has predicted nothing."""
    scratch.last_line(folder, "--register", name, file=__file__)
    return scratch.run_command(
        folder, "score", "--model", f"models:/{name}/1", "--lake", "references"
    )


def register(name: str) -> None:
    """Registers a version that computes the mean colour of each photo."""
    from tests.support.versions import register_colours

    print(register_colours(name).uri)


def script(folder: Path, code: str, out: str) -> float:
    """Seconds of a new process that reads all photos and writes them."""
    began = time.monotonic()
    words = [sys.executable, "-c", code, "s3://photos/daily", out]
    subprocess.run(words, cwd=folder, check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - began


def table_text(images: int, seconds: dict[str, dict[int, list[float]]]) -> str:
    """The medians, and what a wait costs, in Markdown."""
    lines = [
        f"{images} photos of 27 kB. {scratch.machine(('obstore', 'pyspark', 'daft', 'ray'))} "
        "Seconds of whole processes, medians; in parentheses what the wait adds.",
        "",
        f"| way | {' | '.join(f'{wait} ms a request' for wait in WAITS_MS)} |",
        f"|---|{'---|' * len(WAITS_MS)}",
    ]
    for name, by_wait in seconds.items():
        medians = [statistics.median(by_wait[wait]) for wait in WAITS_MS]
        cells = [f"{one:.1f} ({one - medians[0]:+.1f})" for one in medians]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    if sys.argv[1:2] == ["--register"]:
        register(sys.argv[2])
    else:
        main()
