"""Measures the loops, `score` and its peers in turn, each in processes of its own."""

import argparse
import contextlib
import importlib.util
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import scratch
from results import ENGINES, Results

MEASURES = ("limit", "int8_limit", "framework", "cold", "warm", "int8", "float16")
MODULES = {"ray": ("peers.ray_data",), "daft": ("peers.daft_frames",)}  # else peers.spark_udfs
# Of 8 trials on two cores, 3 ended with a segmentation fault and 5 were stopped after 60 to 120 s.
# Source: TensorFlow 2.21 and Keras 3.15 in the threads of Daft 0.7.26.
UNUSABLE = {("daft/native", "keras"): "not measured: Keras crashes in Daft's threads"}
TIMEOUT_S = 3600  # of a peer's process: a run that hangs must not end the benchmark


class PeerError(Exception):
    """A peer's process failed; the message says how, in a few words."""


def measure(given: argparse.Namespace, folder: Path, command: str) -> Results:
    """Measures everything that is asked for, each of it once in each repetition.

    Args:
        given: The arguments of `score`.
        folder: A scratch folder.
        command: The command line, for the record.
    """
    count = scratch.repeat(given.photos, folder / "photos", given.images)
    size = sum(path.stat().st_size for path in (folder / "photos").iterdir()) / count
    keys = [f"{peer}/{engine}" for peer in given.peers for engine in ENGINES]
    missing = {
        key: UNUSABLE[key, given.framework] for key in keys if (key, given.framework) in UNUSABLE
    }
    missing |= {key: "not installed" for key in keys if not _is_installed(key)}
    _prepare(given, folder)
    seconds, agreement = defaultdict[str, list[float]](list), dict[str, float]()
    for number in range(given.repetitions):
        print(f"Repetition {number + 1} of {given.repetitions}", file=sys.stderr)
        for name, value in _loops_and_score(given.measures, folder).items():
            seconds[name].append(value)
        for key in [key for key in keys if key not in missing]:
            try:
                runs = _peer(folder, key)
                agreement |= _agreement(folder, key, count)
            except PeerError as error:
                missing[key] = str(error)
                for run in ("first", "second"):  # some repetitions alone would not compare
                    seconds.pop(f"{key}/{run}", None)
                continue
            for run, value in runs.items():
                seconds[f"{key}/{run}"].append(value)
    return Results(
        framework=given.framework,
        photos=count,
        photo_bytes=size,
        repetitions=given.repetitions,
        command=command,
        facts=scratch.machine(_packages(given)),
        seconds=dict(seconds),
        agreement=agreement,
        missing=missing,
    )


def _is_installed(key: str) -> bool:
    """Whether the package of a peer is there; those of Spark and MLflow always are."""
    peer = key.split("/", maxsplit=1)[0]
    return peer not in MODULES or importlib.util.find_spec(peer) is not None


def _prepare(given: argparse.Namespace, folder: Path) -> None:
    """Ingests the photos, registers the versions that are needed, and downloads them."""
    os.environ |= {
        "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db",
        "PYTHONPATH": scratch.PYTHONPATH,
    }
    scratch.run_command(folder, "ingest", "--source", "photos")
    # The commands run in another folder.
    files = {
        name: str(Path(value).resolve()) if Path(value).is_file() else value
        for name, value in (("weights", given.weights), ("labels", given.labels))
    }
    trained = ("--weights", files["weights"], "--labels", files["labels"])
    options = ("--framework", given.framework, *trained)
    for _ in range(2):
        scratch.run_command(folder, "register", *options, "--engine", "onnxruntime")
    versions = {"onnxruntime": "models:/photos/1"}
    if "framework" in given.measures or given.peers:
        scratch.run_command(folder, "register", *options, "--engine", "native")
        versions["native"] = "models:/photos/3"
    for precision in ("int8", "float16"):
        if {precision, f"{precision}_limit"} & {*given.measures}:
            quantized = ("--precision", precision, "--name", precision, "--min_agreement", "0")
            scratch.run_command(folder, "quantize", "--model", versions["onnxruntime"], *quantized)
            versions[precision] = f"models:/{precision}/1"
    if "cold" in given.measures:  # the first one on a machine saves Spark's classes
        scratch.run_command(folder, "score", "--model", "models:/photos/1")
    for name, uri in versions.items():
        _download(uri, folder / "versions" / name)


def _download(uri: str, target: Path) -> None:
    """The files of a version, and its model config in config.json."""
    import mlflow

    target.mkdir(parents=True)
    mlflow.artifacts.download_artifacts(uri, dst_path=str(target))
    flavors = mlflow.models.Model.load(str(target)).flavors
    config = json.dumps(flavors["python_function"]["config"])
    (target / "config.json").write_text(config, encoding="utf-8")


def _loops_and_score(measures: list[str], folder: Path) -> dict[str, float]:
    """Seconds of each measure that is asked for."""
    here, seconds = Path(__file__).parent, dict[str, float]()
    loops = {"limit": "onnxruntime", "int8_limit": "int8", "framework": "native"}
    for name, version in loops.items():
        if name in measures:
            version_folder = str(folder / "versions" / version)
            threads = scratch.one_thread()
            line = scratch.last_line(
                folder, version_folder, file=here / "loops.py", environment=threads
            )
            runs = json.loads(line)
            seconds |= {name: runs["first"], f"{name}_again": runs["second"]}
    predictions = folder / "lake" / "predictions"
    if "cold" in measures:
        shutil.rmtree(predictions, ignore_errors=True)
        seconds["cold"] = scratch.run_command(folder, "score", "--model", "models:/photos/1")
    asked = {"warm", "int8", "float16"} & {*measures}
    if asked:
        shutil.rmtree(predictions, ignore_errors=True)
        seconds |= json.loads(scratch.last_line(folder, *asked, file=here / "ours.py"))
    return seconds


def _peer(folder: Path, key: str) -> dict[str, float]:
    """Seconds of the first and the second run of a peer.

    Raises:
        PeerError: Its process failed, or took too long.
    """
    peer, engine = key.split("/")
    shutil.rmtree(folder / "out", ignore_errors=True)
    words = MODULES.get(peer, ("peers.spark_udfs", peer))
    version = str(folder / "versions" / engine)
    command = [sys.executable, "-m", *words, "--version", version, "--out", str(folder / "out")]
    log = folder / "peer.log"
    print(f"{key} ...", file=sys.stderr)
    with log.open("w", encoding="utf-8") as errors:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=scratch.one_thread(),
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            start_new_session=True,  # a process group, which ends with it
        )
        try:
            output, _ = process.communicate(timeout=TIMEOUT_S)
        except subprocess.TimeoutExpired:
            raise PeerError(f"no end in {TIMEOUT_S} s") from None
        finally:  # a timeout, an interrupt, and workers that outlive the process
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    lines = [line for line in output.splitlines() if line.startswith('{"first"')]
    if process.returncode or not lines:
        print(log.read_text(encoding="utf-8", errors="replace")[-4000:], file=sys.stderr)
        raise PeerError(f"failed (exit code {process.returncode})")
    seconds: dict[str, float] = json.loads(lines[-1])
    return seconds


def _agreement(folder: Path, key: str, count: int) -> dict[str, float]:
    """The share of the photos for which a peer's second run has the label that `score` has.

    Empty where `score` was not run.

    Raises:
        PeerError: It has not predicted every photo once.
    """
    import pyarrow.parquet as pq

    rows = pq.read_table(folder / "out" / "second", columns=["image_id", "label"])
    labels = dict(zip(rows["image_id"].to_pylist(), rows["label"].to_pylist(), strict=True))
    if not rows.num_rows == len(labels) == count:
        raise PeerError(f"wrote {rows.num_rows} rows for {count} photos")
    expected = _expected(folder)
    same = [labels[image] == label for image, label in expected.items()]
    return {key: statistics.fmean(same)} if same else {}


def _expected(folder: Path) -> dict[str, str]:
    """image_id -> the label that `score` has predicted; empty = it was not run."""
    from deltalake import DeltaTable, QueryBuilder

    if not (folder / "lake" / "predictions").is_dir():
        return {}
    builder = QueryBuilder().register("predictions", DeltaTable(folder / "lake" / "predictions"))
    query = "SELECT image_id, label FROM predictions WHERE model_name='photos' AND model_version=1"
    rows = builder.execute(query).read_all()
    columns = (rows[name].to_pylist() for name in ("image_id", "label"))
    return dict(zip(*columns, strict=True))


def _packages(given: argparse.Namespace) -> tuple[str, ...]:
    """The packages that were measured."""
    native = ("tensorflow", "keras") if given.framework == "keras" else ("torch", "torchvision")
    peers = [peer for peer in given.peers if peer in MODULES and _is_installed(peer)]
    return ("onnxruntime", *native, "pyspark", "mlflow", *peers)
