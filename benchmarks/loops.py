"""Seconds of a bare loop over the photos, as a process: python loops.py VERSION_FOLDER.

A process a core reads its files, decodes them and runs the network, without Spark and a table. For
a version with engine onnxruntime nothing else is imported (the limit); one with engine native is
loaded by MLflow, and predicts 32 images at a time. The second loop finds the processes started and
the network loaded.
"""

import json
import multiprocessing
import sys
import time
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

from peers import networks
from peers.runs import CORES


def main() -> None:
    """Prints the seconds of both loops as JSON, the start and end of the processes in `first`."""
    folder = sys.argv[1]
    is_native = networks.version_config(folder)["engine"] == "native"
    loop: Callable[[str, list[Path]], None] = framework if is_native else onnxruntime
    files = sorted(Path("photos").iterdir())
    shares = [files[core::CORES] for core in range(CORES)]
    began = time.monotonic()
    with multiprocessing.get_context("spawn").Pool(CORES) as pool:
        pool.map(partial(loop, folder), shares, chunksize=1)
        first = time.monotonic()
        pool.map(partial(loop, folder), shares, chunksize=1)
        second = time.monotonic() - first
    print(json.dumps({"first": time.monotonic() - second - began, "second": second}))


def onnxruntime(folder: str, files: list[Path]) -> None:
    """One process's share of the limit."""
    config, inference = networks.version_config(folder), networks.inference_code(folder)
    forward = networks.load(folder)
    for start in range(0, len(files), config["batch_size"]):
        contents = [file.read_bytes() for file in files[start : start + config["batch_size"]]]
        images, _ = inference.decode_all(contents, config)
        forward(images)


def framework(folder: str, files: list[Path]) -> None:
    """One process's share of the framework's loop."""
    import pandas as pd

    model = _model(folder)
    for start in range(0, len(files), 32):
        contents = [file.read_bytes() for file in files[start : start + 32]]
        model.predict(None, pd.DataFrame({"content": contents}))


@cache
def _model(folder: str) -> Any:
    import mlflow

    return mlflow.pyfunc.load_model(folder).unwrap_python_model()


if __name__ == "__main__":
    main()
