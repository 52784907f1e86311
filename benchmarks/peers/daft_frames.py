"""Daft: a class with a batch method over the Delta table, in the threads of one process.

Of the settings in Daft's documentation (Stateful Class UDFs) the fastest in trials on two cores:
processes (`use_process=True` with `max_concurrency`) took longer, with ONNX Runtime and with torch.
Decoding and networks release the interpreter lock.
"""

import time
from typing import Any

import daft

from peers import networks, runs

BATCH_IMAGES = 64
RETURNED_NAMES = ["label", "score"]
RETURNED = daft.DataType.struct({"label": daft.DataType.string(), "score": daft.DataType.float64()})


@daft.cls(use_process=False)
class Predictor:
    """The network, which a process loads once."""

    def __init__(self, version: str) -> None:
        self.network = networks.network(version)

    @daft.method.batch(return_dtype=RETURNED, batch_size=BATCH_IMAGES)
    def predict(self, contents: daft.Series) -> Any:
        """Predictions for encoded images."""
        import pyarrow as pa

        labels, scores = self.network(contents.to_pylist())
        return pa.StructArray.from_arrays([pa.array(labels), pa.array(scores)], RETURNED_NAMES)


def main() -> None:
    """Measures Daft."""
    began = time.monotonic()
    given = runs.arguments()
    predictor = Predictor(given.version)

    def run(out: str) -> None:
        images = daft.read_deltalake("lake/images")
        rows = images.select("image_id", predictor.predict(images["content"]).alias("returned"))
        fields = [rows["returned"].get(name).alias(name) for name in RETURNED_NAMES]
        rows.select("image_id", *fields).write_parquet(out)

    runs.print_runs(began, given.out, run)
    runs.end()


if __name__ == "__main__":
    main()
