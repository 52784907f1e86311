"""The MLflow registry: aliases, stages and the versions that they name."""

import re
import warnings
from collections.abc import Mapping

import mlflow
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from mlproject.errors import UserError, first_line
from mlproject.masking import mask
from mlproject.versions.version import Version as Version  # noqa: PLC0414 - it belongs here

MODEL_ID = "mlproject.model_id"  # the tag of a version whose registry has no logged models
DERIVED_FROM = "mlproject.derived_from"  # the tag of a quantized version: the URI of its source
STAGES = ("None", "Staging", "Production", "Archived")  # Source: MLflow, model_version_stages

_URI = re.compile(r"models:/(?P<name>[^/@]+)(?:@(?P<alias>[^/@]+)|/(?P<rest>[^/@]+))")


def resolve(client: MlflowClient, uri: str) -> Version:
    """The version that a model URI names now, pinned.

    The URI is `models:/photos@champion`, `models:/photos/Production`, `models:/photos/3` or
    `models:/photos/latest`.

    Raises:
        UserError: No such model, version, alias or stage; the message lists what exists.
    """
    parts = _URI.fullmatch(uri)
    if parts is None:
        raise UserError(
            f"{uri!r} is not the URI of a registered model version. Write models:/NAME@ALIAS, "
            "models:/NAME/STAGE or models:/NAME/NUMBER"
        )
    name, alias, rest = parts["name"], parts["alias"], parts["rest"] or ""
    versions = _versions(client, name)
    if alias:
        return _version(_by_alias(client, name, alias), pointer=uri)
    if rest.isdigit():
        chosen = [found for found in versions if int(found.version) == int(rest)]
        if not chosen:
            numbers = ", ".join(str(found.version) for found in versions)
            raise UserError(f"Model {name!r} has no version {rest} (versions: {numbers or 'none'})")
        return _version(chosen[0], pointer=None)
    if rest.lower() == "latest":
        if not versions:
            raise UserError(f"Model {name!r} has no version. Run: mlflow run . -e register")
        return _version(versions[-1], pointer=None)
    stage = _stage(rest)
    staged = [found for found in versions if found.current_stage == stage]
    if not staged:
        now = sorted({found.current_stage for found in versions} - {"None"})
        raise UserError(
            f"Model {name!r} has no version in stage {stage!r} (stages: {', '.join(now) or 'none'})"
            f". Run: mlflow run . -e promote -P model=models:/{name}/NUMBER -P stage={stage}"
        )
    return _version(staged[-1], pointer=f"models:/{name}/{stage}")


def resolve_pointer(client: MlflowClient, pointer: str) -> Version:
    """As `resolve`, of the URI of an alias or stage.

    Raises:
        UserError: As `resolve`; or the URI names a version by number.
    """
    version = resolve(client, pointer)
    if version.pointer is None:
        raise UserError(
            f"{pointer!r} is a version by number, not an alias or stage. Write "
            f"models:/{version.name}@ALIAS or models:/{version.name}/STAGE, or run: "
            f"mlflow run . -e score -P model={pointer}"
        )
    return version


def registered(client: MlflowClient, version: Version) -> ModelVersion:
    """The entry of a version in the registry, with its tags and status.

    Raises:
        UserError: It was deleted, or another model has its number now.
    """
    found = None
    try:
        found = client.get_model_version(version.name, str(version.version))
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
    if found is None or _model_id(found) != version.model_id:
        now = "another model has its number" if found else "it was deleted"
        raise UserError(
            f"{version.uri} ({version.model_id}) is no longer in the registry: {now}. Its "
            "predictions stay. Move the alias to another version: mlflow run . -e promote"
        )
    return found


def source_of(client: MlflowClient, version: Version) -> str:
    """URI of the float32 version that a version was quantized from; "" = it was not, or is gone."""
    try:
        return str(registered(client, version).tags.get(DERIVED_FROM, ""))
    except UserError:
        return ""


def server_apart() -> str | None:
    """The URL of a registry server that is not the tracking server; None = there is none."""
    registry = str(mlflow.get_registry_uri())
    is_apart = registry != mlflow.get_tracking_uri() and re.match("https?://", registry)
    return registry if is_apart else None


def add_version(model_id: str, name: str, tags: Mapping[str, str]) -> Version:
    """Registers a logged model as a new version of a model, which is made if it does not exist.

    Raises:
        UserError: The registry is another server than the tracking server, and cannot know where
            the files lie.
    """
    if server_apart() is None:
        made = mlflow.register_model(f"models:/{model_id}", name, tags=dict(tags))
        return Version(name, int(made.version), model_id, pointer=None)
    # It would look the logged model up in a tracking store of its own. So it is given the place of
    # the files, which it takes where that is no artifact that a server hands out, and no local
    # path. Source: MLflow 3.17, mlflow.server.handlers, _create_model_version.
    client = MlflowClient()
    logged = client.get_logged_model(model_id)
    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    try:
        made = client.create_model_version(
            name,
            logged.artifact_location,
            run_id=logged.source_run_id,
            tags={**tags, MODEL_ID: model_id},
        )
    except MlflowException as error:
        if error.error_code != "INVALID_PARAMETER_VALUE":
            raise
        raise UserError(
            f"The registry {server_apart()!r} does not take files in {logged.artifact_location!r}: "
            "of another server, only those in object storage. Use a tracking server with such "
            "artifacts: mlflow server --no-serve-artifacts --default-artifact-root s3://..."
        ) from error
    return Version(name, int(made.version), model_id, pointer=None)


def move(client: MlflowClient, version: Version, *, alias: str = "", stage: str = "") -> None:
    """Moves an alias, or a stage when one is given, to a version.

    Other versions in the stage are archived: a stage names one version here, as an alias does.

    Raises:
        UserError: The registry refuses the alias or stage.
    """
    stage, number = _stage(stage) if stage else "", str(version.version)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # stages are deprecated, but work
            if stage:
                client.transition_model_version_stage(
                    version.name, number, stage, archive_existing_versions=True
                )
            else:
                client.set_registered_model_alias(version.name, alias, number)
    except MlflowException as error:
        moved = f"Stage {stage!r}" if stage else f"Alias {alias!r}"
        raise UserError(f"{moved} cannot be set on {version.uri!r}: {first_line(error)}") from error


def pointer(version: Version, *, alias: str = "", stage: str = "") -> str:
    """The URI of an alias of a version's model, or of a stage when one is given.

    Raises:
        UserError: There is no such stage.
    """
    if stage:
        return f"models:/{version.name}/{_stage(stage)}"
    return f"models:/{version.name}@{alias}"


def _versions(client: MlflowClient, name: str) -> list[ModelVersion]:
    """All versions of a model, by their numbers."""
    try:
        client.get_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        names = sorted(model.name for model in client.search_registered_models())
        raise UserError(
            f"There is no model {name!r} (models: {', '.join(map(repr, names)) or 'none'}). "
            "Run: mlflow run . -e train, or -e register"
        ) from None
    quoted = name.replace("'", "''")
    found = client.search_model_versions(f"name='{quoted}'")
    return sorted(found, key=lambda version: int(version.version))


def _by_alias(client: MlflowClient, name: str, alias: str) -> ModelVersion:
    try:
        return client.get_model_version_by_alias(name, alias)
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise
        known = ", ".join(map(repr, sorted(client.get_registered_model(name).aliases))) or "none"
        raise UserError(
            f"Model {name!r} has no alias {alias!r} (aliases: {known}). Run: "
            f"mlflow run . -e promote -P model=models:/{name}/NUMBER -P alias={alias}"
        ) from error


def _stage(name: str) -> str:
    for stage in STAGES:
        if stage.lower() == name.lower():
            return stage
    raise UserError(f"There is no stage {name!r} (stages: {', '.join(STAGES)})")


def _version(found: ModelVersion, pointer: str | None) -> Version:
    if found.status != "READY":  # Source: MLflow, ModelVersionStatus
        raise UserError(
            f"models:/{found.name}/{found.version} is not ready ({found.status}). Wait until "
            "it is registered, or name another version"
        )
    return Version(found.name, int(found.version), _model_id(found), pointer)


def _model_id(found: ModelVersion) -> str:
    # The SQL stores keep the id of the logged model in the source only: models:/m-...
    # A server that is not the tracking server knows no logged models.
    known = found.model_id or found.tags.get(MODEL_ID)
    return str(known or mask(str(found.source)).removeprefix("models:/"))
