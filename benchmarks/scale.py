"""Seconds and memory of commands that have little to do, in lakes of many images.

    python benchmarks/scale.py --framework torch --weights FILE --labels FILE

Each lake is made up: metadata without content, in the commits and data files that `ingest` and
`score` would make of photos of 113 kB, by the functions that they call. One version has predicted
all images and serves; another has predicted none. Each command runs in a process of its own, with
`spark.driver.memory=2g`, in this order:

- plan, history, and rescore with nothing new; report;
- ingest of 1,000 drawn photos, and rescore, which scores them.

Memory is the most that the command, its JVM and its workers held at a time, together.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import scratch

COMMIT_IMAGES = 10_000  # as `ingest` limits a commit; photos of 113 kB are 1.1 GB
FILE_IMAGES = 2_500  # in one of its data files, of 256 MB
COMMITS = 1_000  # at most: with more images they are larger
SCORED_IMAGES = 6_000  # in a commit of `score` on two slots; two data files
POINTER = "models:/photos@champion"
LABELS = 1_000
NEW = 1_000
SAMPLE_S = 0.2  # between two looks at the memory
STEPS = {
    "plan": "`plan`",
    "history": "`history`",
    "rescore": "`rescore`, nothing new",
    "report": "`report`",
    "ingest": f"`ingest` of {NEW:,} photos",
    "new": "`rescore` of these",
}


def main() -> None:
    """Measures, prints a table, and writes it to the file `--out`."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, nargs="+", default=[10_000, 10_000_000])
    parser.add_argument("--framework", choices=("keras", "torch"), required=True)
    parser.add_argument("--weights", required=True, help="a weights file")
    parser.add_argument("--labels", default="", help="as in register")
    parser.add_argument("--steps", nargs="*", choices=STEPS, default=list(STEPS))
    parser.add_argument("--keep", type=Path, help="folder for the lakes, which are used again")
    parser.add_argument("--out", type=Path, help="file for the table, in Markdown")
    given = parser.parse_args()
    for name in ("weights", "labels"):  # the commands run in another folder
        if Path(getattr(given, name)).is_file():
            setattr(given, name, str(Path(getattr(given, name)).resolve()))
    facts = scratch.machine(("pyspark", "deltalake", "mlflow", "pyarrow"))
    measured = {}
    for images in given.images:
        with tempfile.TemporaryDirectory() as temporary:
            folder = (given.keep or Path(temporary)) / str(images)
            measured[images] = _measure(given, folder, images)
    lines = ["# Scale", "", facts, "", *_table(measured), ""]
    table = "\n".join(lines)
    print(table)
    if given.out:
        given.out.write_text(table, encoding="utf-8")


def _table(measured: dict[int, dict[str, tuple[float, int]]]) -> list[str]:
    sizes = list(measured)
    head = " | ".join(f"{images:,} images: s | MB" for images in sizes)
    rows = [f"| command | {head} |", "|---|" + "---|---|" * len(sizes)]
    for step, title in STEPS.items():
        cells = (measured[images].get(step) for images in sizes)
        words = " | ".join(
            f"{cell[0]:.1f} | {cell[1] / 1e6:,.0f}" if cell else " | " for cell in cells
        )
        rows.append(f"| {title} | {words} |")
    return rows


def _measure(given: argparse.Namespace, folder: Path, images: int) -> dict[str, tuple[float, int]]:
    """Seconds and bytes of memory of each step, in a lake of so many images."""
    os.environ |= {
        "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db",
        "PYTHONPATH": scratch.PYTHONPATH,
        "PYSPARK_SUBMIT_ARGS": "--conf spark.driver.memory=2g pyspark-shell",
    }
    if not folder.is_dir():
        folder.mkdir(parents=True)
        for _ in range(2):
            words = ("--weights", given.weights, "--labels", given.labels, "--name", "photos")
            scratch.run_command(folder, "register", "--framework", given.framework, *words)
        began = time.monotonic()
        scratch.last_line(folder, "--make-up", str(images), file=__file__)
        print(f"{images:,} images made up in {time.monotonic() - began:.0f} s", flush=True)
        words = ("--model", "models:/photos/1", "--alias", "champion", "--gate", "off")
        scratch.run_command(folder, "promote", *words)
        scratch.run_command(folder, "rescore", "--pointers", POINTER)
    commands = {
        "plan": ("plan", "--pointers", POINTER),
        "history": ("history", "--pointers", POINTER),
        "rescore": ("rescore", "--pointers", POINTER),
        "report": ("report",),
        "ingest": ("ingest", "--source", "new", "--settle", "0"),
        "new": ("rescore", "--pointers", POINTER),
    }
    found = {}
    for step in given.steps:
        if step == "ingest":
            _draw(folder / "new")
        found[step] = seconds, size = _run(folder, *commands[step])
        print(f"{images:,} {step}: {seconds:.1f} s, {size / 1e6:,.0f} MB", flush=True)
    return found


def _run(folder: Path, name: str, *words: str) -> tuple[float, int]:
    """Seconds of a command, and the most bytes of memory that its processes held together."""
    command = [sys.executable, "-m", f"pipelines.{name}", *words]
    began, most = time.monotonic(), 0
    process = subprocess.Popen(
        command, cwd=folder, stdout=subprocess.DEVNULL, start_new_session=True
    )
    while process.poll() is None:
        most = max(most, _held(process.pid))
        time.sleep(SAMPLE_S)
    if process.returncode:
        raise SystemExit(f"{name} ended with exit code {process.returncode}")
    return time.monotonic() - began, most


def _held(session: int) -> int:
    """Bytes of memory of the processes of a session; shared pages count once. Source: proc(5)."""
    total = 0
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError, ValueError, StopIteration):  # it has ended
            fields = (process / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()
            if int(fields[3]) == session:
                lines = (process / "smaps_rollup").read_text(encoding="utf-8").splitlines()
                total += next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total * 1024


def _draw(folder: Path) -> None:
    """Small photos of noise, which no lake has."""
    from PIL import Image

    folder.mkdir(exist_ok=True)
    start = len(list(folder.iterdir()))
    for number in range(start, start + NEW):
        noise = os.urandom(64 * 48 * 3)
        Image.frombytes("RGB", (64, 48), noise).save(folder / f"{number:06}.jpg")


def _make_up(images: int) -> None:
    """Makes the tables of a lake: so many images, all predicted by version 1."""
    import mlflow

    from mlproject.lake import commits, data_files, location, snapshots
    from mlproject.lake.schemas import PARTITIONS, SCHEMAS
    from mlproject.versions import registry

    lake = location.locate_to_write("lake")
    version = registry.resolve(mlflow.MlflowClient(), "models:/photos/1")
    dice = np.random.default_rng(images)
    began = datetime.now(UTC) - timedelta(days=300)
    in_commit = max(COMMIT_IMAGES, -(-images // COMMITS // FILE_IMAGES) * FILE_IMAGES)
    since = snapshots.to_append(lake, "images", "ingest")
    scored = snapshots.to_append(lake, "predictions", f"score:{version.model_id}")
    pending: list[pa.Array] = []

    def write(table: str, at: object, rows: list[pa.Table], **values: str) -> list:
        files = (
            data_files.write([one], SCHEMAS[table], at.path, at.version, partition_values=values)
            for one in rows
        )
        return [file for file in files if file]

    def predict() -> None:
        nonlocal scored
        ids = pa.concat_arrays(pending)
        pending.clear()
        parts = (len(ids) + 1) // 2
        rows = [_predictions(ids.slice(start, parts), version, dice) for start in (0, parts)]
        assert PARTITIONS["predictions"] == ["model_name", "model_version"]
        keys = {"model_name": version.name, "model_version": str(version.version)}
        scored = commits.append_files(write("predictions", scored, rows, **keys), scored)

    for start in range(0, images, in_commit):
        now = began + timedelta(minutes=start // in_commit)
        files = [
            _images(first, min(FILE_IMAGES, images - first), now, dice)
            for first in range(start, min(start + in_commit, images), FILE_IMAGES)
        ]
        since = commits.append_files(write("images", since, files), since)
        for file in files:
            pending.append(file["image_id"].combine_chunks())
            if sum(map(len, pending)) >= max(SCORED_IMAGES, in_commit // 2):
                predict()
    if pending:
        predict()


def _images(first: int, count: int, now: datetime, dice: np.random.Generator) -> pa.Table:
    """Rows of `images` without content."""
    from mlproject.lake.schemas import SCHEMAS

    numbers = np.arange(first, first + count)
    paths = [f"/photos/{number // 10_000:06}/{number:012}.jpg" for number in numbers]
    modified = pa.array(np.full(count, np.datetime64(now.replace(tzinfo=None), "us")))
    facts = {
        "path": pa.array(paths),
        "image_id": _hashes(dice.bytes(32 * count)),
        "size_bytes": pa.array(dice.integers(20_000, 200_000, count)),
        "modified_at": modified,
        "format": pa.repeat("JPEG", count),
        "width": pa.repeat(pa.scalar(500, pa.int32()), count),
        "height": pa.repeat(pa.scalar(375, pa.int32()), count),
        "label": pa.array([f"label {number % LABELS}" for number in numbers]),
        "ingested_at": modified,
    }
    return _table_of(SCHEMAS["images"], facts, count)


def _predictions(ids: pa.Array, version: object, dice: np.random.Generator) -> pa.Table:
    """Rows of `predictions` of these images."""
    from mlproject.lake.schemas import SCHEMAS

    count = len(ids)
    names = pa.array([f"label {number}" for number in range(LABELS)])
    tops = dice.integers(0, LABELS, count * 5)
    scores = np.sort(dice.random((count, 5)), axis=1)[:, ::-1]
    offsets = pa.array(np.arange(0, count * 5 + 1, 5, dtype=np.int32))
    facts = {
        "image_id": ids,
        "label": names.take(pa.array(tops[::5])),
        "score": pa.array(scores[:, 0]),
        "top_labels": pa.ListArray.from_arrays(offsets, names.take(pa.array(tops))),
        "top_scores": pa.ListArray.from_arrays(offsets, pa.array(scores.ravel())),
        "model_name": pa.repeat(version.name, count),
        "model_version": pa.repeat(pa.scalar(version.version, pa.int32()), count),
        "model_id": pa.repeat(version.model_id, count),
        "run_id": pa.repeat("0" * 32, count),
        "images_version": pa.repeat(0, count),
        "scored_at": pa.repeat(pa.scalar(datetime.now(UTC), pa.timestamp("us", "UTC")), count),
    }
    return _table_of(SCHEMAS["predictions"], facts, count)


def _table_of(columns: pa.Schema, facts: dict[str, pa.Array], count: int) -> pa.Table:
    """A table with nulls where no facts are given."""
    arrays = [facts.get(field.name, pa.nulls(count, field.type)) for field in columns]
    return pa.table(dict(zip(columns.names, arrays, strict=True))).cast(columns)


def _hashes(content: bytes) -> pa.Array:
    """64 hex digits for each 32 bytes."""
    digits = np.frombuffer(b"0123456789abcdef", np.uint8)
    octets = np.frombuffer(content, np.uint8)
    text = np.stack([digits[octets >> 4], digits[octets & 15]], axis=1).tobytes()
    fixed = pa.FixedSizeBinaryArray.from_buffers(
        pa.binary(64), len(content) // 32, [None, pa.py_buffer(text)]
    )
    return fixed.cast(pa.binary()).cast(pa.string())


if __name__ == "__main__":
    if sys.argv[1:2] == ["--make-up"]:
        _make_up(int(sys.argv[2]))
        print("made")
    else:
        main()
