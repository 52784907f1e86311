"""Images a second, utilization and memory of a GPU, against a bare loop on the same GPU.

    python benchmarks/gpu.py --photos FOLDER --framework torch --weights FILE --labels FILE

Everything is measured in one run on one GPU, each line in processes of its own, in turn, several
times: ratios count. The photos are repeated until there are enough, each copy different by appended
bytes. Needs the packages of docs/how-to/gpus.md. Utilization is the share of the time in which the
GPU computed anything (nvidia-smi); memory is that of all processes on it.

- network alone: the network on one decoded batch, again and again.
- bare loop: one process reads files, decodes each batch in a thread a core while the GPU computes
  the one before, without pandas and Spark. For each precision and batch size.
- score: `score` in a Spark session that has scored before, with one or two tasks on the GPU, which
  share its cores. For each precision, with the batch size that a version chooses.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import scratch

SAMPLE_MS = 100
NETWORK_S = 3.0  # of the network alone, after as many seconds of a first try
# Versions are registered in this order: the number of each is its place.
PRECISIONS = ("float32", "native", "float16")


def main() -> None:
    """Measures, prints tables, and writes them to the file `--out`."""
    arguments = parsed()
    gpu = gpu_name(arguments.gpu)
    if not gpu and not arguments.without_gpu:
        raise SystemExit(
            "There is no NVIDIA GPU: nvidia-smi finds none. Nothing was measured. Run this on a "
            "machine with one (docs/how-to/gpus.md)"
        )
    for name in ("weights", "labels"):  # the commands run in another folder
        given = Path(getattr(arguments, name))
        if given.is_file():
            setattr(arguments, name, str(given.resolve()))
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        count = scratch.repeat(arguments.photos, folder / "photos", arguments.images)
        os.environ |= {
            "CUDA_DEVICE_ORDER": "PCI_BUS_ID",  # as nvidia-smi counts
            "CUDA_VISIBLE_DEVICES": arguments.gpu,
            "NVIDIA_TF32_OVERRIDE": "0",  # as in Spark's workers
            "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db",
            "PYTHONPATH": scratch.PYTHONPATH,
        }
        register(arguments, folder)
        found = measured(arguments, folder)
    table = table_text(arguments, gpu or "no GPU: these numbers mean nothing", count, found)
    print(table)
    if arguments.out:
        arguments.out.write_text(table, encoding="utf-8")


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--photos", type=Path, required=True, help="folder of photos")
    parser.add_argument("--images", type=int, default=8000, help="at least so many")
    parser.add_argument("--repetitions", type=int, default=3, help="of each measurement")
    parser.add_argument("--framework", choices=("keras", "torch"), required=True)
    parser.add_argument("--weights", default="imagenet", help="imagenet, or a weights file")
    parser.add_argument("--labels", default="", help="as in register")
    parser.add_argument("--batches", type=int, nargs="+", default=[32, 64, 128, 256, 512])
    parser.add_argument("--tasks", type=int, nargs="+", default=[1, 2], help="tasks on the GPU")
    parser.add_argument("--gpu", default="0", help="its number, as nvidia-smi counts")
    parser.add_argument("--out", type=Path, help="file for the tables, in Markdown")
    parser.add_argument(
        "--without-gpu", action="store_true", help="on CPUs, only to try this script"
    )
    return parser.parse_args()


def gpu_name(gpu: str) -> str:
    """Name and memory of a GPU; empty = there is none."""
    if shutil.which("nvidia-smi") is None:
        return ""
    query = ["nvidia-smi", "-i", gpu, "--query-gpu=name,memory.total", "--format=csv,noheader"]
    done = subprocess.run(query, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else ""


def register(arguments: argparse.Namespace, folder: Path) -> None:
    """Fills the lake, and registers a version of each precision."""
    scratch.run_command(folder, "ingest", "--source", "photos")
    given = ("--weights", arguments.weights, "--labels", arguments.labels)
    for engine in ("onnxruntime", "native"):
        words = ("--framework", arguments.framework, "--engine", engine, *given)
        scratch.run_command(folder, "register", *words)
    words = ("--model", "models:/photos/1", "--precision", "float16", "--min_agreement", "0")
    scratch.run_command(folder, "quantize", *words)


def measured(arguments: argparse.Namespace, folder: Path) -> dict[str, dict[str, list[float]]]:
    """What was measured: name of the line -> name of the value -> one for each repetition."""
    found = defaultdict[str, dict[str, list[float]]](lambda: defaultdict(list))
    for _ in range(arguments.repetitions):
        for number, precision in enumerate(PRECISIONS, start=1):
            uri = f"models:/photos/{number}"
            lines = {
                f"{precision}, batch {size}": ("--loop", uri, str(size), arguments.gpu)
                for size in arguments.batches
            } | {
                f"{precision}, {tasks} a GPU": ("--score", uri, str(tasks), arguments.gpu)
                for tasks in arguments.tasks
            }
            for name, words in lines.items():
                values = json.loads(scratch.last_line(folder, *words, file=__file__))
                for key, value in values.items():
                    found[name][key].append(value)
    return found


@contextmanager
def sampled(gpu: str) -> Iterator[dict[str, float]]:
    """Fills in mean utilization (%) and highest memory (MiB) of a GPU in the block; none = NaN."""
    samples: dict[str, float] = {"utilization": float("nan"), "memory": float("nan")}
    if shutil.which("nvidia-smi") is None:
        yield samples
        return
    fields = "--query-gpu=utilization.gpu,memory.used"
    query = ["nvidia-smi", "-i", gpu, fields, "--format=csv,noheader,nounits", "-lms"]
    with subprocess.Popen([*query, str(SAMPLE_MS)], stdout=subprocess.PIPE, text=True) as process:
        try:
            yield samples
        finally:
            process.terminate()
            lines = [line.split(",") for line in process.communicate()[0].splitlines()]
    numbers = [[float(value) for value in line] for line in lines if "N/A" not in "".join(line)]
    if numbers:
        samples["utilization"] = statistics.mean(number[0] for number in numbers)
        samples["memory"] = max(number[1] for number in numbers)


def measure_loop(uri: str, size: str, gpu: str) -> None:
    """Prints what the network alone and the bare loop reach with a batch size, as JSON."""
    import mlflow

    model = mlflow.pyfunc.load_model(uri).unwrap_python_model()
    model.config["device_batch_size"] = batch = int(size)
    forward, _ = model.network()
    inference, files = model.inference, sorted(Path("photos").iterdir())
    contents = [file.read_bytes() for file in files[:batch]]
    images, _ = inference.decode_all(contents, model.config, threads=scratch.CORES)
    network_seconds(forward, images)  # the first one chooses algorithms and allocates memory
    alone = network_seconds(forward, images)
    with sampled(gpu) as samples:
        began = time.monotonic()
        for start in range(0, len(files), 8 * batch):
            contents = [file.read_bytes() for file in files[start : start + 8 * batch]]
            batches = inference.decoded_batches(
                contents, model.config, batch, threads=scratch.CORES, ahead=True
            )
            for decoded, _ in batches:
                forward(decoded)
        rate = len(files) / (time.monotonic() - began)
    limit = inference.batch_limit((*model.key, inference.task_device_index(1)), batch)
    print(json.dumps({"rate": rate, "alone": alone, "limit": limit, **samples}))


def network_seconds(forward: object, images: object) -> float:
    """Images a second of the network alone."""
    began, rounds = time.monotonic(), 0
    while time.monotonic() - began < NETWORK_S:
        forward(images)
        rounds += 1
    return rounds * len(images) / (time.monotonic() - began)


def measure_score(uri: str, tasks: str, gpu: str) -> None:
    """Prints what `score` reaches in a session that has scored before, as JSON."""
    conf = Path(f"conf-{tasks}")
    conf.mkdir(exist_ok=True)
    cores = max(1, scratch.CORES // int(tasks))
    settings = f"spark.master local[{cores * int(tasks)}]\nspark.task.cpus {cores}\n"
    (conf / "spark-defaults.conf").write_text(settings, encoding="utf-8")
    os.environ["SPARK_CONF_DIR"] = str(conf.resolve())
    from mlflow import MlflowClient

    from mlproject.integrations.spark_session import session
    from mlproject.lake import location
    from mlproject.scoring import scorer
    from mlproject.versions import registry

    version, lake = registry.resolve(MlflowClient(), uri), location.locate("lake")
    with session("benchmark") as spark:
        for _ in range(2):  # the first one starts workers and loads the network
            shutil.rmtree(Path("lake", "predictions"), ignore_errors=True)
            with sampled(gpu) as samples:
                done = scorer.score_pending(spark, lake, version)
    print(json.dumps({"rate": done.images / done.seconds, **samples}))


def table_text(
    arguments: argparse.Namespace, gpu: str, count: int, found: dict[str, dict[str, list[float]]]
) -> str:
    """The measurements as Markdown tables, with the machine's facts."""
    middle = {
        name: {key: statistics.median(values) for key, values in line.items()}
        for name, line in found.items()
    }
    lines = [f"# gpu: {arguments.framework}, {count} photos", ""]
    lines += [
        f"{gpu}, {scratch.CORES} cores. Of {arguments.repetitions} repetitions the median.",
        "",
    ]
    lines += [
        "| bare loop | images/s | of the network alone | images that fit | GPU busy, % | MiB |",
        "|---|---|---|---|---|---|",
    ]
    loops = {name: line for name, line in middle.items() if "batch" in name}
    for name, line in loops.items():
        share = f"{line['rate'] / line['alone']:.2f} of {line['alone']:.0f}"
        lines.append(f"| {name} | {line['rate']:.0f} | {share} | {line['limit']:.0f} {ends(line)}")
    lines += [
        "",
        "| score, tasks | images/s | of the best bare loop | GPU busy, % | MiB |",
        "|---|---|---|---|---|",
    ]
    for name, line in middle.items():
        if name not in loops:
            precision = name.split(",")[0]
            best = max(loop["rate"] for key, loop in loops.items() if key.startswith(precision))
            lines.append(f"| {name} | {line['rate']:.0f} | {line['rate'] / best:.2f} {ends(line)}")
    return "\n".join([*lines, ""])


def ends(line: dict[str, float]) -> str:
    """The last columns of a row."""
    return f"| {line['utilization']:.0f} | {line['memory']:.0f} |"


if __name__ == "__main__":
    measurements = {"--loop": measure_loop, "--score": measure_score}
    if sys.argv[1:2] and sys.argv[1] in measurements:
        measurements[sys.argv[1]](*sys.argv[2:])
    else:
        main()
