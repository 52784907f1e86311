"""Images a second of `ingest` against a bare loop over the same files, and the cost of nothing new.

    python benchmarks/ingest.py --photos FOLDER --images 20000

Everything is measured in one run on one machine, the bare loop before and after: ratios count.
The photos are repeated until there are enough, each copy made a file of its own by bytes behind
its end, 1,000 files a folder.

- bare loop: a process a core; each reads its files, hashes them, probes their headers with Pillow,
  and writes one uncompressed Parquet file.
- cold: a new Spark session and `ingest` into a new lake. Ingest alone: without imports and session.
- nothing new: `ingest` again in that session, against `os.scandir` and `stat` over the same tree.
"""

import argparse
import hashlib
import io
import json
import multiprocessing
import os
import sys
import tempfile
import time
from pathlib import Path

import score

CORES = score.CORES


def main() -> None:
    """Measures, prints a table, and writes it where `--out` says."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--photos", type=Path, required=True, help="folder of photos")
    parser.add_argument("--images", type=int, default=20_000, help="at least so many")
    parser.add_argument("--out", type=Path, help="file for the table, in Markdown")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        count = score.repeat(arguments.photos, folder / "photos", arguments.images)
        for number, file in enumerate(sorted((folder / "photos").iterdir())):
            target = folder / "photos" / f"{number // 1000:04}"
            target.mkdir(exist_ok=True)
            file.rename(target / file.name)
        os.environ["PYTHONPATH"] = f"{score.PROJECT / 'src'}{os.pathsep}{score.PROJECT}"
        size, walk = walked(folder / "photos")
        first = bare(folder)
        spark = json.loads(score.child(folder, "--spark", file=__file__))
        last = bare(folder)
        table = told(count, size, walk, [first, last], spark)
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
    """Prints seconds of a cold ingest and of one with nothing new, as JSON."""
    began = time.monotonic()
    from mlproject import ingesting, sources, tables
    from mlproject.session import session

    lake = tables.locate_to_write("lake")
    with session("benchmark") as spark:
        started = time.monotonic()
        ingesting.ingest(spark, lake, sources.listing("photos"))
        ended = time.monotonic()
        listed = sources.listing("photos")
        listing = time.monotonic() - ended
        ingesting.ingest(spark, lake, listed)
        again = time.monotonic() - ended
    print(
        json.dumps(
            {
                "cold": ended - began,
                "session": started - began,
                "listing": listing,
                "nothing_new": again,
            }
        )
    )


def told(count: int, size: int, walk: float, loops: list[float], spark: dict[str, float]) -> str:
    """The measurements as a Markdown table, with the machine's facts."""
    bare_s = min(loops)
    alone = spark["cold"] - spark["session"]
    rows = [("bare loop", bare_s), ("ingest alone", alone), ("ingest, cold", spark["cold"])]
    lines = [
        f"# ingest: {count} photos of {size / count / 1000:.0f} kB",
        "",
        score.facts(("pyspark", "delta-spark", "pyarrow"), loops, spark["session"]),
        "",
        "| | seconds | images/s | MB/s | of the bare loop |",
        "|---|---|---|---|---|",
        *(
            f"| {name} | {s:.1f} | {count / s:.0f} | {size / s / 1e6:.0f} | {bare_s / s:.2f} |"
            for name, s in rows
        ),
        "",
        f"Nothing new: {spark['nothing_new']:.1f} s, of which {spark['listing']:.2f} s list the "
        f"files; `os.scandir` and `stat` alone: {walk:.2f} s.",
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    if sys.argv[1:] == ["--spark"]:
        measure_spark()
    else:
        main()
