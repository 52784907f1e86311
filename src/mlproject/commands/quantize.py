"""Registers a version that computes another one's network in int8 or float16, and compares them.

A version that agrees with the float32 version on too few images is refused, with exit code 3.

mlflow run . -e quantize --env-manager local -P model=models:/photos@champion
"""

from typing import TYPE_CHECKING, Any

import mlproject
from mlproject.commands import console

if TYPE_CHECKING:
    from mlproject.quantization.measures import NetworkMeasures
    from mlproject.quantization.quantized_versions import QuantizedVersion

ROWS = 10  # changed images that are printed; `changed.json` of the run has all


def run(**options: Any) -> None:
    """Quantizes and prints the version and what was measured."""
    _print(mlproject.quantize(**options))


def _print(made: "QuantizedVersion") -> None:
    found = made.measures
    calibrated = f", calibrated on {made.calibration_images} images"
    print(
        f"Registered {made.version.uri}: {made.source.uri} in {made.precision}"
        f"{calibrated if made.calibration_images else ''}"
    )
    print(
        f"Same label on {found.top1_agreement:.1%} of {found.images} held-out images; a score "
        f"differs by {found.max_difference:.2g} at most"
    )
    print()
    columns = ("network", f"accuracy ({found.labelled} images) ", "ms an image ", "MB ")
    rows = [_row("float32", found.float32), _row(made.precision, found.quantized)]
    console.print_table(columns, rows)
    if found.changes:
        print()
        shown = found.changes[:ROWS]
        changes = [(change.before, change.after, change.path) for change in shown]
        console.print_table(("label before", "label after", "image"), changes)
        if len(found.changes) > ROWS:
            print(f"{len(found.changes) - ROWS} more: changed.json of the run")


def _row(name: str, found: "NetworkMeasures") -> tuple[str, ...]:
    accuracy = "no labels" if found.accuracy is None else f"{found.accuracy:.1%}"
    return name, accuracy, f"{found.ms_per_image:.1f}", f"{found.size_bytes / 1e6:.1f}"
