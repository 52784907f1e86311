"""Approvals: tags of a version that say who looked at it, when, and at which files."""

from datetime import UTC, datetime

from mlflow import MlflowClient

from mlproject.versions.registry import Version

BY, AT = "mlproject.approved_by", "mlproject.approved_at"
# What was approved: a version that was made again under its number, or whose files were changed,
# is another.
OF = "mlproject.approved_files"


def approve(client: MlflowClient, version: Version, digest: str, who: str) -> None:
    """Notes on a version that somebody has approved it.

    Args:
        client: The registry.
        version: The version.
        digest: Of its files, as `version_files.read` gives it.
        who: The name of the person.
    """
    at = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
    for key, value in {BY: who, AT: at, OF: _of(version, digest)}.items():
        client.set_model_version_tag(version.name, str(version.version), key, value)


def approval(client: MlflowClient, version: Version, digest: str) -> tuple[bool, str]:
    """Whether a version with these files is approved, and by whom, or what is missing, in words."""
    tags = client.get_model_version(version.name, str(version.version)).tags
    if not tags.get(BY) or not tags.get(AT):
        return False, "nobody has approved it (-P approve=true)"
    words = f"by {tags[BY]}, {tags[AT]}"
    if tags.get(OF) != _of(version, digest):
        return False, f"{words}, but not with these files (-P approve=true)"
    return True, words


def _of(version: Version, digest: str) -> str:
    return f"{version.model_id} {digest}"
