"""Ray Data: `map_batches` with a pool of actors over the Delta table.

The pool has an actor for each core. Ray is told of twice the cores: actors on all CPUs that it
knows leave none to its readers, and the run hangs. Source: ray issue 44687. Each run starts the
actors anew; the session of Ray stays.
"""

import time
from typing import Any

from peers import networks, runs

BATCH_IMAGES = 64


class Predictor:
    """An actor: it loads the network once."""

    def __init__(self, version: str) -> None:
        self.network = networks.network(version)

    def __call__(self, batch: Any) -> Any:
        """Predictions for a table of `image_id` and `content`."""
        import pyarrow as pa

        labels, scores = self.network(batch["content"].to_pylist())
        return pa.table({"image_id": batch["image_id"], "label": labels, "score": scores})


def main() -> None:
    """Measures Ray Data."""
    began = time.monotonic()
    given = runs.arguments()
    import ray

    ray.init(
        num_cpus=2 * runs.CORES,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="error",
    )
    ray.data.DataContext.get_current().enable_progress_bars = False

    def run(out: str) -> None:
        images = ray.data.read_delta("lake/images", columns=["image_id", "content"])
        rows = images.map_batches(
            Predictor,
            fn_constructor_args=(given.version,),
            batch_size=BATCH_IMAGES,
            batch_format="pyarrow",
            compute=ray.data.ActorPoolStrategy(size=runs.CORES),
            num_cpus=1,
        )
        rows.write_parquet(out)

    runs.print_runs(began, given.out, run)
    ray.shutdown()
    runs.end()


if __name__ == "__main__":
    main()
