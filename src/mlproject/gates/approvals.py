"""Approvals: tags of a version that name who approved it, when, and with which files."""

from datetime import UTC, datetime
from typing import NamedTuple

from mlflow import MlflowClient

from mlproject.versions.registry import Version

BY, AT = "mlproject.approved_by", "mlproject.approved_at"
# The approved model id and digest: an approval ends when the version is made again under its
# number, or its files change.
FILES = "mlproject.approved_files"


class Approval(NamedTuple):
    """Whether a version may be promoted.

    Attributes:
        approved: Whether somebody approved it with the files that it has now.
        reason: Who approved it and when, or what is missing, as text.
    """

    approved: bool
    reason: str


def approve(client: MlflowClient, version: Version, digest: str, user: str) -> None:
    """Sets the tags of an approval, by a user, of a version whose files have this digest."""
    at = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
    for key, value in {BY: user, AT: at, FILES: _approved_files(version, digest)}.items():
        client.set_model_version_tag(version.name, str(version.version), key, value)


def read_approval(client: MlflowClient, version: Version, digest: str) -> Approval:
    """The approval of a version whose files have this digest."""
    tags = client.get_model_version(version.name, str(version.version)).tags
    if not tags.get(BY) or not tags.get(AT):
        return Approval(False, "not approved (approve it with -P approve=true)")
    reason = f"by {tags[BY]}, {tags[AT]}"
    if tags.get(FILES) != _approved_files(version, digest):
        return Approval(False, f"{reason}, with other files (approve it with -P approve=true)")
    return Approval(True, reason)


def _approved_files(version: Version, digest: str) -> str:
    return f"{version.model_id} {digest}"
