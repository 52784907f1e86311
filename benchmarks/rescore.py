"""The cost of a moved alias, by the number of images and versions.

    python benchmarks/rescore.py --photos FOLDER --framework torch --weights FILE --labels FILE

- nothing missing: an alias is moved back to a version that has predicted every image, in tables of
  metadata made up for it (no content), each number of images in a new process, after imports:
  `rescore` with its MLflow run, and `plan`, against a bare count of the ids that both must read,
  by `deltalake`.
- 1 % missing: bytes that Spark's JVM reads while it scores 1 % of the photos, which came last in
  an ingest of their own, and all of them, each less what it reads when nothing is missing.
- watch: seconds from the move of an alias to the row of `rollouts` that makes the version serve, by
  `watch` reconciling every second: back to a version that has predicted all, and to one that has
  predicted nothing, with Spark ended and running.
"""

import argparse
import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import scratch

SIZES = (1_000, 100_000, 1_000_000)
POINTER = "models:/photos@champion"


def main() -> None:
    """Measures, prints a table, and writes it to the file `--out`."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--photos", type=Path, required=True, help="folder of photos")
    parser.add_argument("--images", type=int, default=2000, help="at least so many")
    parser.add_argument("--framework", choices=("keras", "torch"), required=True)
    parser.add_argument("--weights", required=True, help="a weights file")
    parser.add_argument("--labels", default="", help="as in register")
    parser.add_argument("--out", type=Path, help="file for the table, in Markdown")
    arguments = parser.parse_args()
    framework = "tensorflow" if arguments.framework == "keras" else "torch"
    facts = scratch.machine((framework, "pyspark", "mlflow", "deltalake"))
    lines = ["# rescore", "", facts, "", *nothing_missing(), ""]
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        count = scratch.repeat(arguments.photos, folder / "all", arguments.images)
        prepare(arguments, folder)
        lines += [*parts_missing(folder, count), "", *watch_rows(folder, count), ""]
    table = "\n".join(lines)
    print(table)
    if arguments.out:
        arguments.out.write_text(table, encoding="utf-8")


def nothing_missing() -> list[str]:
    """Rows of the table of rollbacks."""
    rows = []
    for size in SIZES:
        with tempfile.TemporaryDirectory() as temporary:
            os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{temporary}/mlflow.db"
            line = scratch.last_line(Path(temporary), "--back", str(size), file=__file__)
            seconds = json.loads(line)
        rows.append(
            f"| {size:,} | {seconds['ids']:.2f} | {seconds['plan']:.2f} | {seconds['back']:.2f} "
            f"| {seconds['back'] / seconds['ids']:.1f} | {seconds['rss'] / 1e6:,.0f} |"
        )
    return [
        "| images, nothing missing | count of ids, s | plan, s | back, s | back / ids | MB |",
        "|---|---|---|---|---|---|",
        *rows,
    ]


def measure_back(size: int) -> None:
    """Prints seconds of a rollback and of a plan over made-up tables, as JSON."""
    import resource

    import mlflow
    from deltalake import DeltaTable, QueryBuilder

    from mlproject.lake import location
    from mlproject.rollout import planning, rescoring
    from mlproject.versions import registry

    lake = location.locate_to_write("lake")
    client = mlflow.MlflowClient()
    client.create_registered_model("photos")
    versions = []
    for number in (1, 2):
        client.create_model_version("photos", f"/nowhere/{number}")
        versions.append(registry.resolve(client, f"models:/photos/{number}"))
    make_up(lake, size, versions)

    for version in versions:
        registry.move(client, version, alias="champion")
        rescoring.rescore([POINTER], lake)
    registry.move(client, versions[0], alias="champion")
    began = time.monotonic()
    both = QueryBuilder()
    both.register("images", DeltaTable(f"{lake}/images"))
    both.register("predictions", DeltaTable(f"{lake}/predictions"))
    predicted = "SELECT image_id FROM predictions WHERE model_version = 1"
    for ids in ("SELECT image_id FROM images", predicted):
        both.execute(f"SELECT count(DISTINCT image_id) FROM ({ids}) AS ids").read_all()
    ids_s = time.monotonic() - began
    began = time.monotonic()
    planning.plan([POINTER], lake)
    plan_s = time.monotonic() - began
    began = time.monotonic()
    [rollout] = rescoring.rescore([POINTER], lake).rollouts
    back_s = time.monotonic() - began
    assert rollout.switched
    rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(json.dumps({"ids": ids_s, "plan": plan_s, "back": back_s, "rss": rss}))


def make_up(lake: str, size: int, versions: list) -> None:
    """Tables of so many images without content, all predicted by these versions."""
    import deltalake
    import pyarrow as pa

    from mlproject.lake import commits, snapshots
    from mlproject.lake.schemas import SCHEMAS

    ids = pa.array([hashlib.sha256(str(number).encode()).hexdigest() for number in range(size)])
    now = datetime.now(UTC)

    def rows(table: str, **facts: object) -> pa.Table:
        columns = SCHEMAS[table]
        facts["image_id"] = ids
        filled = [
            facts[field.name]
            if isinstance(facts.get(field.name), pa.Array)
            else pa.repeat(pa.scalar(facts.get(field.name), field.type), size)
            for field in columns
        ]
        return pa.table(filled, schema=columns)

    paths = pa.array([f"/photos/{number // 1000}/{number}.jpg" for number in range(size)])
    images = rows("images", path=paths, size_bytes=110_000, ingested_at=now, modified_at=now)
    commits.append_rows(images, snapshots.to_append(lake, "images", "ingest"))
    snapshots.to_append(lake, "predictions", "")
    for version in versions:
        predictions = rows(
            "predictions",
            model_name=version.name,
            model_version=version.version,
            model_id=version.model_id,
            label="daisy",
            score=0.9,
            top_labels=["daisy", "rose"],
            top_scores=[0.9, 0.1],
            scored_at=now,
        )
        deltalake.write_deltalake(f"{lake}/predictions", predictions, mode="append")


def prepare(arguments: argparse.Namespace, folder: Path) -> None:
    """Two versions, and all photos but the last 1 % ingested, then these."""
    for name in ("weights", "labels"):  # the commands run in another folder
        given = Path(getattr(arguments, name))
        if given.is_file():
            setattr(arguments, name, str(given.resolve()))
    os.environ |= {
        "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db",
        "PYTHONPATH": scratch.PYTHONPATH,
    }
    files = sorted((folder / "all").iterdir())
    (folder / "photos").mkdir()
    for part in (files[: -len(files) // 100], files[-len(files) // 100 :]):
        for file in part:
            file.rename(folder / "photos" / file.name)
        scratch.run_command(folder, "ingest", "--source", "photos", "--settle", "0")
    for _ in range(2):
        given = ("--weights", arguments.weights, "--labels", arguments.labels)
        scratch.run_command(folder, "register", "--framework", arguments.framework, *given)


def parts_missing(folder: Path, count: int) -> list[str]:
    """Rows of the table of bytes."""
    measured = json.loads(scratch.last_line(folder, "--parts", file=__file__))
    nothing, size = measured["nothing"], measured["table"]
    rows = []
    for name, images in (("part", measured["images"]), ("all", count)):
        read = measured[name] - nothing
        rows.append(
            f"| {images:,} of {count:,} ({images / count:.1%}) | {read / 1e6:,.1f} "
            f"| {read / size:.1%} | {measured[name + '_s']:.1f} |"
        )
    return [
        f"| images missing, of {size / 1e6:,.0f} MB in the table | MB read | of the table | s |",
        "|---|---|---|---|",
        *rows,
    ]


def measure_parts() -> None:
    """Prints bytes that Spark's JVM read for nothing, for 1 % and for all, as JSON."""
    from mlflow import MlflowClient

    from mlproject.integrations import spark_session
    from mlproject.lake import location, queries, snapshots
    from mlproject.scoring import scorer
    from mlproject.versions import registry

    client, lake = MlflowClient(), location.locate("lake")
    first, second = (registry.resolve(client, f"models:/photos/{number}") for number in (1, 2))
    sizes = [
        file.size_bytes for file in snapshots.active_files(snapshots.open_table(f"{lake}/images"))
    ]
    old = queries.query(
        lake,
        "SELECT image_id FROM images WHERE ingested_at < (SELECT max(ingested_at) FROM images)",
        ["images"],
    )["image_id"].to_pylist()
    with spark_session.session("benchmark") as spark:
        java = spark._jvm.java.lang.ProcessHandle.current().pid()

        def read() -> int:
            facts = Path(f"/proc/{java}/io").read_text(encoding="utf-8")
            return int(facts.split()[1])  # rchar: also what the page cache gave

        def measured(version: registry.Version, **options: object) -> tuple[int, float, int]:
            before, began = read(), time.monotonic()
            scored = scorer.score_pending(spark, lake, version, **options)
            return read() - before, time.monotonic() - began, scored.images

        whole, whole_s, _ = measured(second)
        measured(first, only=old)
        part, part_s, images = measured(first)
        nothing, _, _ = measured(first)
    facts = {"nothing": nothing, "part": part, "part_s": part_s, "images": images}
    print(json.dumps({**facts, "all": whole, "all_s": whole_s, "table": sum(sizes)}))


def watch_rows(folder: Path, count: int) -> list[str]:
    """Rows of the table of a watch."""
    import mlflow

    from mlproject.rollout import ledger

    client = mlflow.MlflowClient()
    client.set_registered_model_alias("photos", "champion", "1")
    rows = []
    for idle, spark in (("0", "ended"), ("3600", "running")):
        options = ("--pointers", POINTER, "--interval", "1", "--idle", idle)
        process = subprocess.Popen(
            [sys.executable, "-m", "pipelines.watch", *options],
            cwd=folder,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )

        def seconds_until_serving(version: int) -> float:
            began = time.monotonic()
            client.set_registered_model_alias("photos", "champion", str(version))
            while True:
                now = ledger.read(f"{folder}/lake").serving(POINTER)
                if now and now.version.version == version:
                    return time.monotonic() - began
                time.sleep(0.05)

        try:
            seconds_until_serving(1)
            seconds_until_serving(2)
            backs = [seconds_until_serving(version) for version in (1, 2, 1)]
            rows.append(f"| back, all predicted, Spark {spark} | {sorted(backs)[1]:.1f} |")
            made = client.get_model_version("photos", "1")
            number = int(client.create_model_version("photos", made.source).version)
            seconds = seconds_until_serving(number)
            rows.append(f"| {count:,} photos to score, Spark {spark} | {seconds:.1f} |")
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait()
    return [
        "| from the moved alias to the serving version, reconciling every second | s |",
        "|---|---|",
        *rows,
    ]


if __name__ == "__main__":
    if sys.argv[1:2] == ["--back"]:
        measure_back(int(sys.argv[2]))
    elif sys.argv[1:] == ["--parts"]:
        measure_parts()
    else:
        main()
