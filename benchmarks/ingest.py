"""Images a second of `ingest` against a bare loop over the same files, and the cost of nothing new.

    python benchmarks/ingest.py --photos FOLDER --images 20000

Everything is measured in one run on one machine: ratios count. The bare loop and the cold ingest
are measured in turn, several times, the rest once. The photos are repeated until there are enough,
each copy different by appended bytes, 1,000 files a folder.

- bare loop: a process a core; each reads its files, hashes them, probes their headers with Pillow,
  and writes one uncompressed Parquet file.
- cold: the command `ingest` into a new lake. Ingest alone: without imports and session.
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
import shutil
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import listings
import scratch

CORES = scratch.CORES
CURVE = (1_000, 10_000, 100_000, 1_000_000)  # files of ingests with nothing new


def main() -> None:
    """Measures, prints a table, and writes it to the file `--out`."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--photos", type=Path, required=True, help="folder of photos")
    parser.add_argument("--images", type=int, default=20_000, help="at least so many")
    parser.add_argument("--repetitions", type=int, default=3, help="of bare loop and ingest")
    parser.add_argument(
        "--only-cold", action="store_true", help="leave out the stream, Daft and nothing new"
    )
    parser.add_argument("--out", type=Path, help="file for the table, in Markdown")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        count = scratch.repeat(arguments.photos, folder / "photos", arguments.images)
        for number, file in enumerate(sorted((folder / "photos").iterdir())):
            target = folder / "photos" / f"{number // 1000:04}"
            target.mkdir(exist_ok=True)
            file.rename(target / file.name)
        os.environ["PYTHONPATH"] = scratch.PYTHONPATH
        size, _ = listings.walked(folder / "photos")
        seconds = defaultdict[str, list[float]](list)
        for _ in range(arguments.repetitions):
            seconds["bare"].append(bare(folder))
            for name in ("cold", "lake"):
                shutil.rmtree(folder / name, ignore_errors=True)
            cold = scratch.run_command(folder, "ingest", "--source", "photos", "--lake", "cold")
            seconds["cold"].append(cold)
            line = scratch.last_line(folder, "--ingest", file=__file__)
            for name, value in json.loads(line).items():
                seconds[name].append(value)
        once = {} if arguments.only_cold else measure_once(folder)
        table = table_text(count, size, seconds, once)
    print(table)
    if arguments.out:
        arguments.out.write_text(table, encoding="utf-8")


def measure_once(folder: Path) -> dict[str, Any]:
    """What is measured once: the stream, Daft where it is installed, and nothing new."""
    measured: dict[str, Any] = json.loads(scratch.last_line(folder, "--stream", file=__file__))
    measured["curve"] = []
    for files in map(str, CURVE):
        scratch.last_line(folder, "make-up", files, file=listings.__file__)
        line = scratch.last_line(folder, "nothing-new", files, file=listings.__file__)
        measured["curve"].append(json.loads(line))
    if importlib.util.find_spec("daft"):
        measured["daft"] = json.loads(scratch.last_line(folder, "--daft", file=__file__))
    return measured


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


def measure_ingest() -> None:
    """Prints seconds of an ingest in a new session, and of nothing new, as JSON."""
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
    print(json.dumps({"alone": ended - started, "again": again}))


def measure_stream() -> None:
    """Prints seconds of Spark's own stream in a used session, and of it once more, as JSON."""
    from mlproject.integrations.spark_session import session

    with session("benchmark") as spark:
        spark.read.format("delta").load("lake/images").select("image_id").collect()
        print(json.dumps({"stream": stream(spark), "stream_again": stream(spark)}))


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


def table_text(count: int, size: int, seconds: dict[str, list[float]], once: dict[str, Any]) -> str:
    """The measurements as a Markdown table, with the machine's facts."""
    rows = [
        ("bare loop", seconds["bare"]),
        ("ingest alone", seconds["alone"]),
        ("ingest, cold (the whole command)", seconds["cold"]),
        ("ingest again, nothing new", seconds["again"]),
    ]
    if once:
        title = "Spark's stream of binaryFile into Delta, in a session that has read Delta"
        rows.append((title, [once["stream"]]))
    if "daft" in once:
        rows.append(("Daft, reading and writing alone, imports and all", [once["daft"]]))
    packages = ("pyspark", "delta-spark", "pyarrow")
    lines = [
        f"# ingest: {count} photos of {size / count / 1000:.0f} kB",
        "",
        scratch.facts(packages, seconds["bare"]),
        f"Median, least and most seconds; repetitions of ingest: {len(seconds['bare'])}.",
        "",
        "| | seconds | least | most | images/s | MB/s | of the bare loop |",
        "|---|---|---|---|---|---|---|",
        *(_row(name, found, count, size, seconds["bare"]) for name, found in rows),
        "",
    ]
    return "\n".join(lines + (_once(once) if once else []))


def _row(name: str, seconds: list[float], count: int, size: int, loop: list[float]) -> str:
    middle = statistics.median(seconds)
    spread = f"{middle:.1f} | {min(seconds):.1f} | {max(seconds):.1f}"
    rates = f"{count / middle:.0f} | {size / middle / 1e6:.0f}"
    return f"| {name} | {spread} | {rates} | {statistics.median(loop) / middle:.2f} |"


def _once(once: dict[str, Any]) -> list[str]:
    """The lines on a second stream and on nothing new."""
    return [
        f"The stream once more, with nothing new: {once['stream_again']:.1f} s.",
        "",
        "Nothing new (of the last row the listing is made up):",
        "",
        "| files | scandir and stat, s | listing, s | listing and comparing, s | "
        "beyond 1,000 files, of scandir and stat | memory, MB |",
        "|---|---|---|---|---|---|",
        *(_curve_row(at, once["curve"][0]["all"]) for at in once["curve"]),
        "",
    ]


def _curve_row(at: dict[str, Any], fixed: float) -> str:
    walk = "" if math.isnan(at["walk"]) else f"{at['walk']:.3f}"
    beyond = f"{(at['all'] - fixed) / at['walk']:.1f}" if walk and at["all"] > fixed else ""
    seconds = f"{at['listing']:.2f} | {at['all']:.2f}"
    return f"| {at['files']:,} | {walk} | {seconds} | {beyond} | {at['peak']:.0f} |"


if __name__ == "__main__":
    if sys.argv[1:] == ["--ingest"]:
        measure_ingest()
    elif sys.argv[1:] == ["--stream"]:
        measure_stream()
    elif sys.argv[1:] == ["--daft"]:
        measure_daft()
    else:
        main()
