"""The whole life cycle: ingest, train two models, promote, re-score, go back, report.

mlflow run . --env-manager local

Without a source it draws a small labelled image set of its own.
"""

import importlib
import time
from pathlib import Path
from typing import Any

DRAWN = "drawn_images"  # beside the lake; made again only when it is not complete
ALIAS = "champion"


def run(
    *,
    lake: str = "lake",
    source: str = "",
    keras_weights: str = "none",
    torch_weights: str = "none",
    name: str = "photos",
) -> None:
    """Runs the commands as children of one MLflow run, in one Spark session.

    A session takes longer to start than the commands take to work, on a laptop.

    Args:
        lake: Folder or URI of the tables.
        source: Folder or URI of labelled photos; empty = drawn images.
        keras_weights: Where Keras starts: imagenet, none (random weights), or a weights file.
        torch_weights: Where torch starts: imagenet, none (random weights), or a weights file.
        name: Name of the registered model.
    """
    parameters = dict(locals())
    import mlflow

    from mlproject.integrations import mlflow_tracking
    from mlproject.integrations.spark_session import session
    from mlproject.lake import location
    from mlproject.rollout import ledger
    from mlproject.training import classifier, drawn_images
    from mlproject.versions import registration

    began = time.monotonic()
    mlflow_tracking.connect()
    registration.check_name(name)
    starts = {"keras": keras_weights, "torch": torch_weights}
    for framework, start in starts.items():  # refused before anything costs
        classifier.check(framework, start, classifier.defaults(start))
    tables, pointer = location.locate_to_write(lake), f"models:/{name}@{ALIAS}"
    out = str(Path("report.html").resolve())
    made = {}
    with mlflow_tracking.run("main", parameters), session("mlproject demo", lake=lake):
        photos, settle = source, 2
        if not source:
            folder = (Path(tables).parent if location.is_local(tables) else Path.cwd()) / DRAWN
            drawn_images.draw(folder)
            photos, settle = str(folder), 0  # they are complete: no need to let them settle
        _step("ingest", source=photos, lake=tables, settle=settle)
        for framework, start in starts.items():
            options = {"framework": framework, "weights": start, "lake": tables, "name": name}
            made[framework] = _step("train", **options).version.uri
        for framework in ("keras", "torch", "keras"):
            # Both are shown, whichever is better: the gates report and block nothing.
            _step("promote", model=made[framework], alias=ALIAS, lake=tables, gate="warn")
            _step("rescore", pointers=[pointer], lake=tables)
        _step("report", lake=tables, out=out)
        mlflow.log_metric("seconds", time.monotonic() - began)
        serving = ledger.read(tables).serving(pointer)
    print(
        f"""
Done in {time.monotonic() - began:.0f} s.
Report:           {out}
Serving version:  {pointer} = {serving.version.uri if serving else "none"}

Try next:
  mlflow run . -e promote --env-manager local -P model={made["torch"]}
  mlflow run . -e rescore --env-manager local -P lake={lake}
  mlflow ui --backend-store-uri {mlflow.get_tracking_uri()}"""
    )


def _step(command: str, **options: Any) -> Any:
    """Runs a command in this process and returns its result; its MLflow run is a child."""
    words = " ".join(f"{key}={value}" for key, value in options.items())
    print(f"\n== {command} {words}", flush=True)
    return importlib.import_module(f"mlproject.commands.{command}").run(**options)
