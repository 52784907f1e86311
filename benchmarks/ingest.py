"""Images a second of `ingest` against a bare loop over the same files, and the cost of nothing new.

    python benchmarks/ingest.py --photos FOLDER --images 20000

Everything is measured in one run on one machine, the bare loop before and after: ratios count.
The photos are repeated until there are enough, each copy different by appended bytes,
1,000 files a folder.

- bare loop: a process a core; each reads its files, hashes them, probes their headers with Pillow,
  and writes one uncompressed Parquet file.
- cold: a new Spark session and `ingest` into a new lake. Ingest alone: without imports and session.
- again: `ingest` once more, with nothing new, in the same session.
- stream: Spark's own stream of binary files into a Delta table, which neither hashes nor probes.
- daft: Daft reads the files into Parquet files, without a hash and a probe either; where
  `pip install daft` has been done, which is no requirement of the project.
- nothing new: what `ingest` does to find that the table holds the listing of all files, against
  `os.scandir` and `stat` over the same tree, each number of files in a new process, after imports.
"""

import argparse
import hashlib
import importlib.util
import io
import json
import math
import multiprocessing
import os
import sys
import tempfile
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import scratch

CORES = scratch.CORES
CURVE = (1_000, 10_000, 100_000, 1_000_000)  # files of ingests with nothing new
REAL = 100_000  # above it files are made up


def main() -> None:
    """Measures, prints a table, and writes it to the file `--out`."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--photos", type=Path, required=True, help="folder of photos")
    parser.add_argument("--images", type=int, default=20_000, help="at least so many")
    parser.add_argument("--out", type=Path, help="file for the table, in Markdown")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        count = scratch.repeat(arguments.photos, folder / "photos", arguments.images)
        for number, file in enumerate(sorted((folder / "photos").iterdir())):
            target = folder / "photos" / f"{number // 1000:04}"
            target.mkdir(exist_ok=True)
            file.rename(target / file.name)
        os.environ["PYTHONPATH"] = scratch.PYTHONPATH
        size, _ = walked(folder / "photos")
        first = bare(folder)
        spark = json.loads(scratch.last_line(folder, "--spark", file=__file__))
        spark["curve"] = []
        for files in map(str, CURVE):
            scratch.last_line(folder, "--make-up", files, file=__file__)
            line = scratch.last_line(folder, "--nothing-new", files, file=__file__)
            spark["curve"].append(json.loads(line))
        if importlib.util.find_spec("daft"):
            spark["daft"] = json.loads(scratch.last_line(folder, "--daft", file=__file__))
        last = bare(folder)
        table = table_text(count, size, [first, last], spark)
    print(table)
    if arguments.out:
        arguments.out.write_text(table, encoding="utf-8")


def walked(photos: Path) -> tuple[int, float]:
    """Bytes of all files, and seconds of listing them with their facts."""
    began = time.monotonic()
    size, folders = 0, [str(photos)]
    while folders:
        for entry in os.scandir(folders.pop()):
            if entry.is_dir():
                folders.append(entry.path)
            else:
                size += entry.stat().st_size
    return size, time.monotonic() - began


def bare(folder: Path) -> float:
    """Seconds of the bare loop, from listing to the last file written."""
    began = time.monotonic()
    files = sorted((folder / "photos").rglob("*.jpg"))
    with multiprocessing.get_context("spawn").Pool(CORES) as pool:
        shares = [(files[core::CORES], folder / f"bare-{core}.parquet") for core in range(CORES)]
        pool.starmap(bare_loop, shares, chunksize=1)
    return time.monotonic() - began


def bare_loop(files: list[Path], out: Path) -> None:
    """One process's share."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    from PIL import Image

    names = ("path", "image_id", "width", "height", "content")
    writer = None
    for start in range(0, len(files), 128):
        rows = []
        for file in files[start : start + 128]:
            content = file.read_bytes()
            with Image.open(io.BytesIO(content)) as image:
                width, height = image.size
            digest = hashlib.sha256(content).hexdigest()
            rows.append((str(file), digest, width, height, content))
        table = pa.table(dict(zip(names, map(list, zip(*rows, strict=True)), strict=True)))
        writer = writer or pq.ParquetWriter(out, table.schema, compression="none")
        writer.write_table(table)
    if writer:
        writer.close()


def measure_spark() -> None:
    """Prints seconds of a cold ingest, of Spark's own stream, and of nothing new, as JSON."""
    began = time.monotonic()
    from mlproject.ingestion import new_images, source_listing
    from mlproject.integrations.spark_session import session
    from mlproject.lake import location

    lake = location.locate_to_write("lake")
    with session("benchmark") as spark:
        started = time.monotonic()
        new_images.ingest_pending(spark, lake, source_listing.listing("photos"))
        ended = time.monotonic()
        new_images.ingest_pending(spark, lake, source_listing.listing("photos"))
        again = time.monotonic() - ended
        streamed = stream(spark)
        streamed_again = stream(spark)
    facts = {"cold": ended - began, "session": started - began, "again": again}
    print(json.dumps({**facts, "stream": streamed, "stream_again": streamed_again}))


def stream(spark: Any) -> float:
    """Seconds of Spark's stream of binary files into a Delta table: no hash, no header."""
    began = time.monotonic()
    columns = "path string, modificationTime timestamp, length long, content binary"
    reader = spark.readStream.format("binaryFile").schema(columns)
    reader = reader.option("recursiveFileLookup", "true")
    writer = reader.load("photos").writeStream.format("delta").trigger(availableNow=True)
    writer.option("checkpointLocation", "checkpoint").start("streamed").awaitTermination()
    return time.monotonic() - began


def measure_daft() -> None:
    """Prints the seconds that Daft takes from the files to Parquet files, as JSON."""
    began = time.monotonic()
    import daft
    from daft.functions import download

    files = daft.from_glob_path("photos/**/*.jpg")
    files = files.with_column("content", download(files["path"]))
    files.write_parquet("daft", compression="none")
    print(json.dumps(time.monotonic() - began))


def nothing_new(count: int) -> dict[str, float]:
    """What finding nothing new among so many files takes: seconds, and memory of the process."""
    from mlproject.ingestion import known_files, source_listing
    from mlproject.lake import location

    folder = Path(f"files-{count}")
    walk = walked(folder)[1] if count <= REAL else math.nan
    began = time.monotonic()
    listed = source_listing.listing(str(folder)) if count <= REAL else synthetic(folder, count)
    listing = time.monotonic() - began
    found = known_files.plan(location.locate(f"lake-{count}"), listed)
    seconds = time.monotonic() - began
    assert (found.new, found.changed, found.listed) == (0, 0, count)
    return {"files": count, "walk": walk, "listing": listing, "all": seconds, "peak": peak_mb()}


def make_up(count: int) -> None:
    """Makes so many files, or none when they are too many, and a table that has their listing.

    The rows are written without reading a file: `ingest` compares listings.
    """
    import pyarrow as pa

    from mlproject.ingestion import source_listing
    from mlproject.lake import commits, location, schemas, snapshots

    folder = Path(f"files-{count}")
    folder.mkdir()
    for number in range(count if count <= REAL else 0):
        file = folder / f"{number // 1000:04}" / f"{number % 1000:03}.jpg"
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(b"x")
    listed = source_listing.listing(str(folder)) if count <= REAL else synthetic(folder, count)
    hashes = (hashlib.sha256(path.encode()) for path in listed.files["path"].to_pylist())
    rows = {name: listed.files[name] for name in listed.files.column_names}
    rows["image_id"] = pa.array([found.hexdigest() for found in hashes])
    rows["ingested_at"] = pa.array([datetime.now(UTC)] * count)
    columns = schemas.SCHEMAS["images"]
    whole = [rows.get(field.name, pa.nulls(count, field.type)) for field in columns]
    since = snapshots.to_append(location.locate_to_write(f"lake-{count}"), "images", "benchmark")
    commits.append_rows(pa.table(whole, names=columns.names).cast(columns), since)
    print(count)


def peak_mb() -> float:
    """The most memory that this process has held, MB. Source: proc(5), VmHWM."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) / 1000 for line in lines if line.startswith("VmHWM"))


def synthetic(folder: Path, count: int) -> Any:
    """A listing of files that are nowhere."""
    import pyarrow as pa

    from mlproject.ingestion import source_listing

    folder = folder.resolve()
    names = [f"{folder}/{number // 1000:04}/{number % 1000:03}.jpg" for number in range(count)]
    columns = {"path": names, "size_bytes": [1] * count, "modified_at": range(count)}
    files = pa.table({**columns, "label": ["red"] * count}, schema=source_listing.LISTED).sort_by(
        "path"
    )
    return replace(source_listing.listing(str(folder)), files=files)


def table_text(count: int, size: int, loops: list[float], spark: dict[str, Any]) -> str:
    """The measurements as a Markdown table, with the machine's facts."""
    bare_s = min(loops)
    alone = spark["cold"] - spark["session"]
    rows = [
        ("bare loop", bare_s),
        ("ingest alone", alone),
        ("ingest, cold (new session)", spark["cold"]),
        ("ingest again, nothing new", spark["again"]),
        ("Spark's stream of binaryFile into Delta, in the same session", spark["stream"]),
    ]
    if "daft" in spark:
        rows.append(("Daft, reading and writing alone, imports and all", spark["daft"]))
    lines = [
        f"# ingest: {count} photos of {size / count / 1000:.0f} kB",
        "",
        scratch.facts(("pyspark", "delta-spark", "pyarrow"), loops, spark["session"]),
        "",
        "| | seconds | images/s | MB/s | of the bare loop |",
        "|---|---|---|---|---|",
        *(
            f"| {name} | {s:.1f} | {count / s:.0f} | {size / s / 1e6:.0f} | {bare_s / s:.2f} |"
            for name, s in rows
        ),
        "",
        f"The stream once more, with nothing new: {spark['stream_again']:.1f} s.",
        "",
        "Nothing new (of the last row the listing is made up):",
        "",
        "| files | scandir and stat, s | listing, s | listing and comparing, s | "
        "beyond 1,000 files, of scandir and stat | memory, MB |",
        "|---|---|---|---|---|---|",
        *(_curve_row(at, spark["curve"][0]["all"]) for at in spark["curve"]),
        "",
    ]
    return "\n".join(lines)


def _curve_row(at: dict[str, Any], fixed: float) -> str:
    walk = "" if math.isnan(at["walk"]) else f"{at['walk']:.3f}"
    beyond = f"{(at['all'] - fixed) / at['walk']:.1f}" if walk and at["all"] > fixed else ""
    seconds = f"{at['listing']:.2f} | {at['all']:.2f}"
    return f"| {at['files']:,} | {walk} | {seconds} | {beyond} | {at['peak']:.0f} |"


if __name__ == "__main__":
    if sys.argv[1:] == ["--spark"]:
        measure_spark()
    elif sys.argv[1:] == ["--daft"]:
        measure_daft()
    elif sys.argv[1:2] == ["--make-up"]:
        make_up(int(sys.argv[2]))
    elif sys.argv[1:2] == ["--nothing-new"]:
        print(json.dumps(nothing_new(int(sys.argv[2]))))
    else:
        main()
