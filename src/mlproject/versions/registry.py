"""The MLflow registry: pointers (aliases and stages) and the versions behind them."""

import re
import warnings
from collections.abc import Callable

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from mlproject.errors import UserError, first_line
from mlproject.versions.version import Version as Version  # noqa: PLC0414 - it belongs here

STAGES = ("None", "Staging", "Production", "Archived")  # Source: MLflow, model_version_stages

_URI = re.compile(r"models:/(?P<name>[^/@]+)(?:@(?P<alias>[^/@]+)|/(?P<rest>[^/@]+))")


def resolve(client: MlflowClient, uri: str) -> Version:
    """The version that a model URI names now, pinned.

    Args:
        client: The registry.
        uri: `models:/photos@champion`, `models:/photos/Production`, `models:/photos/3` or
            `models:/photos/latest`.

    Raises:
        UserError: No such model, version, alias or stage; the message says what there is.
    """
    parts = _URI.fullmatch(uri)
    if parts is None:
        raise UserError(
            f"{uri!r} is no model URI of a registered version. Write models:/NAME@ALIAS, "
            "models:/NAME/STAGE or models:/NAME/NUMBER"
        )
    name, alias, rest = parts["name"], parts["alias"], parts["rest"] or ""
    versions = _versions(client, name)
    if alias:
        return _version(_by_alias(client, name, alias), pointer=uri)
    if rest.isdigit():
        chosen = [found for found in versions if int(found.version) == int(rest)]
        if not chosen:
            numbers = ", ".join(sorted((str(found.version) for found in versions), key=int))
            raise UserError(f"Model {name!r} has no version {rest} (versions: {numbers or 'none'})")
        return _version(chosen[0], pointer=None)
    if rest.lower() == "latest":
        if not versions:
            raise UserError(f"Model {name!r} has no version. Run: mlflow run . -e register")
        return _version(max(versions, key=lambda found: int(found.version)), pointer=None)
    stage = _stage(rest)
    staged = [found for found in versions if found.current_stage == stage]
    if not staged:
        now = sorted({found.current_stage for found in versions} - {"None"})
        raise UserError(
            f"Model {name!r} has no version in stage {stage!r} (stages: {', '.join(now) or 'none'})"
            f". Run: mlflow run . -e promote -P model=models:/{name}/NUMBER -P stage={stage}"
        )
    newest = max(staged, key=lambda found: int(found.version))
    return _version(newest, pointer=f"models:/{name}/{stage}")


def resolve_pointer(client: MlflowClient, pointer: str) -> Version:
    """As `resolve`, of a URI that may name another version later.

    Raises:
        UserError: As `resolve`; or it is a version by number.
    """
    version = resolve(client, pointer)
    if version.pointer is None:
        raise UserError(
            f"{pointer!r} is one version, which never moves. Name a pointer "
            f"(models:/{version.name}@ALIAS or models:/{version.name}/STAGE), or run: "
            f"mlflow run . -e score -P model={pointer}"
        )
    return version


def registered(client: MlflowClient, version: Version) -> ModelVersion:
    """What the registry has of a version: its tags and status.

    Raises:
        UserError: It was deleted, or another model has its number by now.
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
            f"{version.uri} ({version.model_id}) is not in the registry any more: {now}. Its "
            "answers stay; point at another version: mlflow run . -e promote"
        )
    return found


def move(client: MlflowClient, version: Version, *, alias: str = "", stage: str = "") -> str:
    """Points an alias, or a stage when one is given, at a version.

    A stage is a pointer here: whatever else stood in it is archived.

    Returns:
        The pointer, as a URI.

    Raises:
        UserError: No alias or stage of that name can be set.
    """
    moved = pointer(version, alias=alias, stage=stage)
    if stage:
        stage = _stage(stage)
        _try(
            lambda: client.transition_model_version_stage(
                version.name, str(version.version), stage, archive_existing_versions=True
            ),
            f"Stage {stage!r} cannot be set on {version.uri!r}",
        )
        return moved
    _try(
        lambda: client.set_registered_model_alias(version.name, alias, str(version.version)),
        f"Alias {alias!r} cannot be set on {version.uri!r}",
    )
    return moved


def pointer(version: Version, *, alias: str = "", stage: str = "") -> str:
    """The URI of an alias of a version's model, or of a stage when one is given.

    Raises:
        UserError: There is no such stage.
    """
    if stage:
        return f"models:/{version.name}/{_stage(stage)}"
    return f"models:/{version.name}@{alias}"


def _versions(client: MlflowClient, name: str) -> list[ModelVersion]:
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
    return list(client.search_model_versions(f"name='{quoted}'"))


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


def _stage(word: str) -> str:
    for stage in STAGES:
        if stage.lower() == word.lower():
            return stage
    raise UserError(f"There is no stage {word!r} (stages: {', '.join(STAGES)})")


def _version(found: ModelVersion, pointer: str | None) -> Version:
    if found.status != "READY":  # Source: MLflow, ModelVersionStatus
        raise UserError(
            f"models:/{found.name}/{found.version} is not ready ({found.status}). Wait for its "
            "registration, or point at another version"
        )
    return Version(found.name, int(found.version), _model_id(found), pointer)


def _model_id(found: ModelVersion) -> str:
    # The SQL stores keep the id of the logged model in the source only: models:/m-...
    return str(found.model_id or str(found.source).removeprefix("models:/"))


def _try(call: Callable[[], object], failed: str) -> None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # stages are deprecated, and work
            call()
    except MlflowException as error:
        raise UserError(f"{failed}: {first_line(error)}") from error
