"""The cost of an erasure and of a compaction: time, and memory of the driver and of each worker.

    python benchmarks/erase.py --megabytes 300 1000

Tables of 100 kB blobs, in data files of 128 MB. Memory is the peak resident memory of a process
above what it had before the rewrite, sampled from /proc every 10 ms, so this runs on Linux only.
"""

import argparse
import hashlib
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

PROJECT = Path(__file__).parents[1]
sys.path.insert(0, str(PROJECT / "src"))
BLOB_BYTES, FILE_BYTES, MB = 100_000, 128 * 1024**2, 1024**2


def main() -> None:
    """Measures each size in a process of its own, and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, nargs="+", default=[300, 1000])
    parser.add_argument("--measure", type=int, default=0, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        measure(arguments.measure)
        return
    print(f"{'MB':>6} {'step':<8} {'s':>7} {'driver +MB':>11} {'worker +MB':>11} {'files':>6}")
    for megabytes in arguments.megabytes:
        command = [sys.executable, __file__, "--measure", str(megabytes)]
        subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": str(PROJECT / "src")})


def measure(megabytes: int) -> None:
    """Makes a table of a size, then compacts it, then erases three images of it."""
    from mlproject.integrations.spark_session import session
    from mlproject.lake import rewrites

    with tempfile.TemporaryDirectory() as folder, session("benchmark") as spark:
        path = f"{folder}/images"
        ids = fill(folder, megabytes)
        context = spark.sparkContext
        slots = context.defaultParallelism
        # Workers that have imported what a rewrite needs.
        context.parallelize(range(slots), slots).map(import_rewrites).collect()
        for step in ("compact", "erase"):
            with peaks() as peak:
                began = time.monotonic()
                if step == "compact":
                    done = rewrites.compact(path, 4 * FILE_BYTES, 2 * FILE_BYTES, lambda: spark)
                else:
                    done = rewrites.erase_rows(path, ids[:: len(ids) // 3][:3], lambda: spark)
                seconds = time.monotonic() - began
            driver, worker = peak()
            print(
                f"{megabytes:>6} {step:<8} {seconds:>7.1f} {driver:>11.0f} {worker:>11.0f} "
                f"{done.files_removed:>6}",
                flush=True,
            )


def fill(lake: str, megabytes: int) -> list[str]:
    """Blobs in data files of 128 MB; returns their image_ids."""
    import pyarrow as pa

    from mlproject.lake import commits, data_files, schemas, snapshots

    columns, now = schemas.SCHEMAS["images"], datetime.now(UTC)
    since = snapshots.to_append(lake, "images", "benchmark")
    ids = [hashlib.sha256(str(n).encode()).hexdigest() for n in range(megabytes * MB // BLOB_BYTES)]
    in_a_file = FILE_BYTES // BLOB_BYTES

    def tables(some: list[str]) -> Iterator[pa.Table]:
        for start in range(0, len(some), 100):
            rows = [
                {"path": f"/{key}", "image_id": key, "content": os.urandom(BLOB_BYTES)}
                | {"size_bytes": BLOB_BYTES, "ingested_at": now}
                for key in some[start : start + 100]
            ]
            yield pa.Table.from_pylist(rows, schema=columns)

    for start in range(0, len(ids), in_a_file):
        written = data_files.write(
            tables(ids[start : start + in_a_file]), columns, since.path, since.version
        )
        since = commits.append_files([written] if written else [], since) or since
    return ids


def import_rewrites(number: int) -> int:
    """Runs in a worker."""
    from mlproject.lake import rewrites

    return number * len(rewrites.__name__)


class peaks:  # noqa: N801 - used as a function
    """Peak memory of this process and of its Python workers, above what they had, in MB."""

    def __enter__(self) -> "peaks":
        self.base = memory("VmRSS")
        self.highest: dict[int, int] = {}
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self.watch)
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        self.thread.join()

    def watch(self) -> None:
        """Samples the memory of each process."""
        while not self.ended.wait(0.01):
            for process, kilobytes in memory("VmRSS").items():
                self.highest[process] = max(kilobytes, self.highest.get(process, 0))

    def __call__(self) -> tuple[float, float]:
        """(driver, the largest of the workers)."""
        lowest = min(value for process, value in self.base.items() if process != os.getpid())
        above = {
            process: (kilobytes - self.base.get(process, lowest)) / 1024
            for process, kilobytes in self.highest.items()
        }
        driver = above.pop(os.getpid())
        return driver, max(above.values(), default=0)


def memory(name: str) -> dict[int, int]:
    """A figure of /proc, in kB, of this process and the Python processes below it."""
    found, parents = {}, {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            lines = (folder / "status").read_text(encoding="utf-8").splitlines()
        except OSError:
            continue
        facts = dict(line.split(":", 1) for line in lines if ":" in line)
        parents[int(folder.name)] = int(facts["PPid"])
        if name in facts and facts["Name"].strip().startswith("python"):
            found[int(folder.name)] = int(facts[name].split()[0])

    def is_ours(process: int) -> bool:
        while process > 1:
            if process == os.getpid():
                return True
            process = parents.get(process, 0)
        return False

    return {process: value for process, value in found.items() if is_ours(process)}


if __name__ == "__main__":
    main()
