"""Credentials, server, region and certificates, as AWS's own tools find them (botocore)."""

import os
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from typing import Any

from mlproject.errors import UserError, first_line

ADVICE = (
    "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, for a user who may list "
    "the bucket and read its objects"
)


def session() -> Any:
    """What AWS's own tools find: a botocore session, one as long as the environment is the same.

    Raises:
        UserError: The profile that is named is not there.
    """
    from botocore.exceptions import BotoCoreError

    facts = {name: word for name, word in os.environ.items() if name.startswith("AWS_")}
    found = _session_of(tuple(sorted(facts.items())), os.environ.get("HOME"))
    try:
        found.get_scoped_config()
    except BotoCoreError as error:
        raise UserError(f"The configuration of AWS cannot be used: {first_line(error)}") from error
    return found


@lru_cache(1)  # it renews the credentials of a role before they expire
def _session_of(environment: tuple[tuple[str, str], ...], home: str | None) -> Any:
    import botocore.session  # it takes 0.2 s to import

    found = botocore.session.get_session()
    # Its own parser takes three quarters of the time of a listing.
    parsers = found.get_component("response_parser_factory")
    parsers.set_parser_defaults(timestamp_parser=_timestamp)
    return found


def _timestamp(value: Any) -> datetime:
    """The time that an answer of AWS names; most are as `2026-11-27T18:54:46.000Z`."""
    from botocore.utils import parse_timestamp

    if isinstance(value, str) and value[10:11] == "T" and value.endswith("Z"):
        return datetime.fromisoformat(value)
    found: datetime = parse_timestamp(value)
    return found


def region() -> str:
    """The region that the environment or the profile names; "" = none."""
    return os.environ.get("AWS_REGION") or _configured("region")


def _configured(name: str) -> str:
    return str(session().get_config_variable(name) or "")


def endpoint() -> str:
    """The server of S3 that the environment or the profile names; "" = Amazon's."""
    from botocore.configprovider import ConfiguredEndpointProvider

    asked = session()
    found = ConfiguredEndpointProvider(asked.full_config, asked.get_scoped_config(), "s3")
    return str(found.provide() or "")


def certificates() -> str:
    """The file of certificates that servers are checked with; "" = those of the system.

    delta-rs takes no such setting: the environment of this process gets it for that.
    """
    bundle = _configured("ca_bundle") or os.environ.get("SSL_CERT_FILE", "")
    if bundle:
        os.environ["SSL_CERT_FILE"] = bundle
    return bundle


@dataclass(frozen=True, slots=True)
class Credentials:
    """A user's key; for a role, one of some hours."""

    access_key: str
    secret_key: str = field(repr=False)
    session_token: str | None = field(repr=False)


def credentials() -> Credentials:
    """The key that AWS's own tools find: in the environment, a profile, a container, a machine.

    Raises:
        UserError: There is none.
    """
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        found = session().get_credentials()
        frozen = found and found.get_frozen_credentials()
    except (BotoCoreError, ClientError) as error:  # such as a role that may not be assumed
        raise UserError(f"No credentials for S3: {first_line(error)}. {ADVICE}") from error
    if not frozen:
        raise UserError(f"No credentials for S3 were found. {ADVICE}")
    return Credentials(frozen.access_key, frozen.secret_key, frozen.token)
