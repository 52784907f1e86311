"""The files of a model version: their digest and the packages that they require."""

import hashlib
import json
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import mlflow
from mlflow import MlflowClient
from mlflow.models import Model
from mlflow.store.artifact.artifact_repo import ArtifactRepository
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

from mlproject.errors import MlprojectError, RefusedError, UserError, first_line
from mlproject.integrations.outages import raise_fault_of_machine
from mlproject.versions.registry import Version, registered, server_apart

DIGEST = "mlproject.digest"  # the tag of a version with the digest of its files
# What loading adds to a folder with a version's files: the metadata of a download (source: mlflow,
# models_artifact_repo) and Python's bytecode.
ADDED_BY_LOADING = {"registered_model_meta", "__pycache__"}


@dataclass(frozen=True, slots=True)
class Files:
    """What the files of a version contain."""

    digest: str
    """Hex sha256 over the names and bytes of all of them."""
    packages: tuple[tuple[str, str, str], ...]
    """Name, pinned version and installed version ("absent" = none) of each pinned package."""
    preprocessing: str
    """Hex sha256 over what makes the network's input from bytes: the model config and the code in
    the artifact `inference` (`onboard` in older versions)."""

    @property
    def unmet(self) -> list[str]:
        """Packages that are installed in another version or not at all, as text.

        `spark_udf` runs a version in the workers' own environment: environments of its own cannot
        take binary input there. Source: MLflow issue 18722.
        """
        return [f"{name} {pin} (here {here})" for name, pin, here in self.packages if pin != here]


def read(version: Version) -> Files:
    """Reads all files of a version.

    Raises:
        UserError: They are lost, or the artifact store refuses them.
        MachineError: A file system or the network failed.
    """
    with tempfile.TemporaryDirectory() as name:
        return download(version, Path(name))


def download(version: Version, folder: Path) -> Files:
    """Downloads all files of a version into an existing folder, and reads them.

    Raises:
        UserError: They are lost, or the artifact store refuses them.
        MachineError: A file system or the network failed.
    """
    _download(version, "", folder)
    requirements = folder / "requirements.txt"
    lines = requirements.read_text(encoding="utf-8") if requirements.is_file() else ""
    return Files(_digest(folder), tuple(_packages(lines)), _preprocessing(folder))


def read_model(version: Version) -> Model:
    """Reads the file MLmodel of a version, which says how it is loaded.

    Raises:
        UserError: It is lost, or the artifact store refuses it.
        MachineError: A file system or the network failed.
    """
    with tempfile.TemporaryDirectory() as name:
        _download(version, "MLmodel", Path(name))
        return Model.load(name)


def require_unchanged(client: MlflowClient, version: Version, files: Files) -> None:
    """Raises an error when the files of a version are not those that were promoted.

    The digest is a tag of the registered version. Where it is not set yet, as for an alias that
    was moved by hand, it is set now.

    Raises:
        RefusedError: The files have another digest.
        UserError: The version is no longer in the registry.
    """
    known = registered(client, version).tags.get(DIGEST)
    if known is None:
        client.set_model_version_tag(version.name, str(version.version), DIGEST, files.digest)
    elif known != files.digest:
        raise RefusedError(
            f"The files of {version.uri} are not those that were promoted (sha256 "
            f"{files.digest[:12]}..., was {known[:12]}...). Register them as a new version: "
            "mlflow run . -e register"
        )


def _download(version: Version, path: str, folder: Path) -> None:
    """Downloads one of a version's files, or all of them for the path ""."""
    place = f"the registry {mlflow.get_registry_uri()!r}"
    try:
        place, repository = _artifacts(version)
        repository.download_artifacts(path, dst_path=str(folder))
        # MLflow downloads nothing of a missing folder, and raises no error.
        if not (folder / "MLmodel").is_file():
            raise FileNotFoundError("there is no file MLmodel")
    except MlprojectError:
        raise
    except Exception as error:  # of MLflow, or of any client of an artifact store
        raise_fault_of_machine(error, f"The files of {version.uri} were not read from {place}")
        raise UserError(
            f"The files of {version.uri} cannot be read now from {place} ({first_line(error)}). "
            "Restore them there, or let this machine read them; or move the alias to another "
            "version: mlflow run . -e promote"
        ) from error


def _artifacts(version: Version) -> tuple[str, ArtifactRepository]:
    """Where the files of a version lie, as text and as MLflow's client of that store.

    The registry says it, as the model may be logged to another tracking server. A version that the
    registry has no longer may still be a logged model.
    """
    client = MlflowClient()
    try:
        registered(client, version)
        uri = str(client.get_model_version_download_uri(version.name, str(version.version)))
    except UserError:
        if not version.is_logged:
            raise
        uri = str(client.get_logged_model(version.model_id).artifact_location)
    # A registry server names artifacts that servers hand out only where they are its own.
    server = server_apart() or str(mlflow.get_tracking_uri())
    place = f"{uri!r} of {server!r}" if uri.startswith("mlflow-artifacts:") else repr(uri)
    return place, get_artifact_repository(uri, tracking_uri=server)


def _preprocessing(folder: Path) -> str:
    flavors = Model.load(str(folder / "MLmodel")).flavors
    config = json.dumps(flavors.get("python_function", {}).get("config"), sort_keys=True)
    artifacts = folder / "artifacts"
    name = "inference" if (artifacts / "inference").is_dir() else "onboard"
    code = _digest(artifacts / name)
    return hashlib.sha256(f"{config}\0{code}".encode()).hexdigest()


def _digest(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = path.relative_to(folder).as_posix()
        if not ADDED_BY_LOADING & set(Path(name).parts):
            with path.open("rb") as file:
                content = hashlib.file_digest(file, "sha256").digest()
            digest.update(name.encode() + b"\0" + content)
    return digest.hexdigest()


def _packages(requirements: str) -> Iterator[tuple[str, str, str]]:
    for line in requirements.splitlines():
        pin = re.match(r"([\w.-]+)==([\w.]+)", line)
        if pin:
            try:
                here = metadata.version(pin[1]).split("+")[0]
            except metadata.PackageNotFoundError:
                here = "absent"
            yield pin[1], pin[2], here
