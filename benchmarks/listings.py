"""What finding nothing new among many files takes, as a process: python listings.py STEP FILES.

The step `make-up` makes the files, and a table that has their listing; `nothing-new` prints what
comparing both takes.
"""

import hashlib
import json
import math
import os
import sys
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

REAL = 100_000  # above it files are made up


def main() -> None:
    """Runs a step."""
    step, count = sys.argv[1], int(sys.argv[2])
    if step == "make-up":
        make_up(count)
    else:
        print(json.dumps(nothing_new(count)))


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


if __name__ == "__main__":
    main()
