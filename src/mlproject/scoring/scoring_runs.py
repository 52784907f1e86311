"""What the MLflow run of a scoring records: the version, its environment, and how fast it was."""

from mlflow import MlflowClient

from mlproject.scoring.scorer import ScoringResult
from mlproject.versions.registry import registered
from mlproject.versions.version import Version
from mlproject.versions.version_files import Files

# Tags that must be equal for all rows of a run, or its predictions could not be replayed.
REPLAYED = ("mlproject.digest", "mlproject.preprocessing", "mlproject.packages")


def describe(
    client: MlflowClient, run_id: str, version: Version, files: Files, session: str
) -> bool:
    """Tags a run with the version and its environment, before the first row names the run.

    Args:
        client: The tracking server.
        run_id: The run that the rows of `predictions` will name.
        version: The version that predicts.
        files: The version's files.
        session: The kind of Spark session, as `spark_session.master_name` gives it.

    Returns:
        Whether it was tagged; False = rows of this run were made with other files or packages.
    """
    framework = registered(client, version).tags.get("framework", "")
    packages = " ".join(f"{name}=={here}" for name, _, here in files.packages)
    tags = {
        **version_tags(version),
        "mlproject.framework": framework,
        "mlproject.session": session,
        "mlproject.digest": files.digest,
        "mlproject.preprocessing": files.preprocessing,
        "mlproject.packages": packages,
    }
    known = client.get_run(run_id).data.tags
    if any(known.get(key, tags[key]) != tags[key] for key in REPLAYED):
        return False
    for key, value in tags.items():
        client.set_tag(run_id, key, value)
    return True


def log(client: MlflowClient, run_id: str, result: ScoringResult) -> None:
    """Logs a scoring to its run, as metrics."""
    client.set_tag(run_id, "mlproject.images_version", str(result.images_version))
    metrics = {
        "images": result.images,
        "images_per_second": result.images / result.seconds,
        "errors": result.errors,
        "unreadable": result.unreadable,
        "bytes": result.size_bytes,
    }
    for key, value in metrics.items():
        client.log_metric(run_id, key, value)


def version_tags(version: Version) -> dict[str, str]:
    """The tags by which the runs of a version are found."""
    return {"mlproject.version": version.uri, "mlproject.model_id": version.model_id}
