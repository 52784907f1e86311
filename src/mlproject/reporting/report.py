"""The report of a lake as one HTML file."""

import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import mlflow

from mlproject.errors import UserError
from mlproject.integrations import mlflow_tracking
from mlproject.lake import location
from mlproject.reporting import lake_report
from mlproject.storage.local_files import write_whole
from mlproject.versions import registry


@dataclass(frozen=True, slots=True)
class Report:
    """A report that was written."""

    file: Path
    """The HTML file."""
    images: int
    """Different images in the lake."""
    versions: int
    """Model versions with predictions."""
    pointers: int
    """Aliases and stages with a row in `rollouts`."""
    different: int
    """Images that two serving versions predict differently, by pairs of versions."""


def report(lake: str = "lake", *, out: str = "report.html") -> Report:
    """Writes what the versions predict for the images of a lake, as one HTML file.

    Args:
        lake: Folder or URI of the tables.
        out: The HTML file to write.

    Raises:
        UserError: There is no lake, or the file cannot be written.
    """
    parameters = dict(locals())
    client = mlflow_tracking.connect()
    file = _writable(out)
    with mlflow_tracking.run("report", parameters):
        data = lake_report.collect(location.locate(lake), partial(registry.source_of, client))
        write_whole(file, lake_report.render(data))
        mlflow.log_artifact(str(file))
        metrics = {
            "images": data.images.distinct,
            "errors": data.images.errors,
            "versions": len(data.versions),
            "pointers": len(data.serving),
            "different": sum(found.different for found in data.differences),
        }
        mlflow.log_metrics(metrics)
        for table, version in data.table_versions.items():
            mlflow.set_tag(f"mlproject.{table}_version", version)
    del metrics["errors"]
    return Report(file, **metrics)


def _writable(name: str) -> Path:
    """The file to write; one that cannot be written is refused before minutes of work."""
    out = Path(name).expanduser().resolve()
    reason = "it is a folder" if out.is_dir() else ""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = str(error.strerror)
    if reason or not os.access(out.parent if out.is_file() or not out.exists() else out, os.W_OK):
        raise UserError(
            f"Report {name!r} cannot be written ({reason or 'no permission'}). Name another file: "
            "-P out=report.html"
        )
    return out
