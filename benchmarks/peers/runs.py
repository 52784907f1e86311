"""Seconds of a peer's process and of its second run, as every peer's process prints them."""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable

CORES = len(os.sched_getaffinity(0))


def arguments(*peers: str) -> argparse.Namespace:
    """The arguments of a peer's process; with several peers, the first one names the peer."""
    parser = argparse.ArgumentParser()
    if peers:
        parser.add_argument("peer", choices=peers)
    parser.add_argument("--version", required=True, help="folder of a downloaded version")
    parser.add_argument("--out", required=True, help="folder for Parquet files")
    return parser.parse_args()


def print_runs(began: float, out: str, run: Callable[[str], None]) -> None:
    """Runs a peer twice and prints the seconds: `first` since `began`, `second` alone.

    Args:
        began: When the process began, on the monotonic clock.
        out: Folder for the predictions of each run.
        run: Predicts all images and writes the predictions to the folder that it is given.
    """
    run(f"{out}/first")
    first = time.monotonic() - began
    began = time.monotonic()
    run(f"{out}/second")
    print(json.dumps({"first": first, "second": time.monotonic() - began}))


def end() -> None:
    """Ends the process without the destructors of its libraries.

    delta-rs' pyarrow dataset aborts in them, in a part of all runs. Source: deltalake 1.6.6 with
    pyarrow 25.0.1.
    """
    sys.stdout.flush()
    os._exit(0)
