"""Folders in S3: their URIs, and the clients of each library that reads or writes there.

Each gets the same server, credentials and certificates, see `aws`; but Spark's JVMs look for
credentials themselves, at the same places.
"""

import os
import re
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import parse_qsl, urlencode

from pyarrow import fs

from mlproject.errors import UserError
from mlproject.storage import aws, store_errors

if TYPE_CHECKING:  # it takes 0.1 s to import
    from obstore.store import S3Store

# Timeouts of one request. pyarrow's defaults of 1 s and 3 s are too short for a busy server;
# ATTEMPTS is its default.
CONNECT_SECONDS = 5.0  # for a connection
SILENT_SECONDS = 10.0  # for the next byte
ATTEMPTS = 3
WHOLE_SECONDS = 300.0  # for a request and all its bytes, which are at most 100 MB

SETTINGS = ("endpoint_override", "region", "scheme", "anonymous", "requester_pays")


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder in a bucket, and its server."""

    root: str
    """Names of the bucket and the folder, as in the keys of objects."""
    endpoint: str
    """URL of the server; "" = Amazon's."""
    region: str
    """Name of the region; servers other than Amazon's accept any."""
    anonymous: bool = False
    """Whether requests are not signed, as for public buckets."""
    requester_pays: bool = False
    """Whether this user pays for the requests, and not the bucket's owner."""

    @property
    def bucket(self) -> str:
        """Name of the bucket."""
        return self.root.partition("/")[0]

    def uri(self) -> str:
        """The folder as a source URI that needs only credentials from the environment."""
        settings = {"endpoint_override": self.endpoint, "region": self.region}
        flags = {name: "true" for name in ("anonymous", "requester_pays") if getattr(self, name)}
        return f"s3://{self.root}?{urlencode({**settings, **flags}, safe=':/')}"


def folder(source: str) -> Folder:
    """The folder of `s3://BUCKET/FOLDER?endpoint_override=URL&region=NAME&anonymous=true`.

    The name of the folder is written as in the keys, as in AWS's tools: `%41` is not `A`. Without
    settings after the "?" they are those of the environment and of the profile (AWS_ENDPOINT_URL,
    AWS_REGION, AWS_SKIP_SIGNATURE, AWS_REQUEST_PAYER), and Amazon's server is asked for the region
    of the bucket.

    Raises:
        UserError: The URI is invalid, or the region of the bucket is unknown.
    """
    place, _, query = re.sub("^s3a?://", "", source).partition("?")
    given = dict(parse_qsl(query, keep_blank_values=True))
    endpoint = given.get("endpoint_override", aws.endpoint())
    if "@" in place.split("/")[0] or "@" in endpoint:
        raise UserError(
            "A URI of S3 and its server must not contain credentials: everybody can read them. "
            f"{aws.ADVICE}"
        )
    parts = [part for part in place.split("/") if part]
    unknown = sorted(given.keys() - set(SETTINGS))
    if not parts or {".", ".."} & set(parts):
        raise UserError(f"{source!r} names no bucket and folder. Write: s3://BUCKET/FOLDER")
    if unknown:
        raise UserError(
            f"{f's3://{place}'!r} has unknown settings: {', '.join(unknown)} "
            f"(known: {', '.join(SETTINGS)})"
        )
    if endpoint and "://" not in endpoint:
        endpoint = f"{given.get('scheme', 'https')}://{endpoint}"
    if endpoint and not endpoint.startswith(("http://", "https://")):
        raise UserError(
            f"{endpoint!r}, the server of {source!r}, is not a URL. Write http://HOST:PORT"
        )
    region = given.get("region")
    if endpoint and not region:  # with which requests to other servers than Amazon's are signed
        region = aws.region() or "us-east-1"
    return Folder(
        "/".join(parts),
        endpoint,
        region or _region(source, parts[0]),
        _is_on(given.get("anonymous", os.environ.get("AWS_SKIP_SIGNATURE", ""))),
        _is_on(given.get("requester_pays", os.environ.get("AWS_REQUEST_PAYER", ""))),
    )


def _is_on(word: str) -> bool:
    return word.lower() in ("true", "1", "yes", "requester")


@cache
def _region(source: str, bucket: str) -> str:
    try:
        return str(fs.resolve_s3_region(bucket))
    except OSError as error:
        raise UserError(f"{source!r} cannot be opened. {store_errors.advice(error)}") from error


def filesystem(folder: Folder) -> fs.S3FileSystem:
    """The file system of a folder, of pyarrow. Makes no request."""
    key = None if folder.anonymous else aws.credentials()
    return _filesystem(folder.endpoint, folder.region, key, aws.certificates())


@lru_cache(8)
def _filesystem(
    endpoint: str, region: str, key: aws.Credentials | None, certificates: str
) -> fs.S3FileSystem:
    signed = {name: getattr(key, name) for name in aws.Credentials.__slots__} if key else {}
    return fs.S3FileSystem(
        endpoint_override=endpoint or None,
        region=region,
        anonymous=key is None,
        tls_ca_file_path=certificates or None,
        connect_timeout=CONNECT_SECONDS,
        request_timeout=SILENT_SECONDS,
        retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=ATTEMPTS),
        **signed,
    )


def store(folder: Folder) -> "S3Store":
    """The bucket of a folder, of obstore. Makes no request."""
    return _store(replace(folder, root=folder.bucket), aws.certificates())


@lru_cache(8)
def _store(bucket: Folder, certificates: str) -> "S3Store":
    from obstore.store import S3Store

    options: dict[str, Any] = {
        "allow_http": bucket.endpoint.startswith("http://"),
        "connect_timeout": timedelta(seconds=CONNECT_SECONDS),
        "read_timeout": timedelta(seconds=SILENT_SECONDS),
        "timeout": timedelta(seconds=WHOLE_SECONDS),
    }
    if certificates:
        options["root_certificate"] = Path(certificates).read_bytes()
    # Amazon's is named too: else it is the one that the environment names.
    amazon = f"https://s3.{bucket.region}.amazonaws.com"
    return S3Store(
        bucket.root,
        endpoint=bucket.endpoint or amazon,
        region=bucket.region,
        skip_signature=bucket.anonymous,
        request_payer=bucket.requester_pays,
        disable_bulk_delete=True,  # not every server knows it
        client_options=cast(Any, options),
        retry_config={"max_retries": ATTEMPTS - 1},
        credential_provider=None if bucket.anonymous else _key_for_minutes,
    )


def _key_for_minutes() -> Any:
    """A key as obstore asks for it; it asks again before that expires."""
    key = aws.credentials()
    return {
        "access_key_id": key.access_key,
        "secret_access_key": key.secret_key,
        "token": key.session_token,
        "expires_at": datetime.now(UTC) + timedelta(minutes=5),
    }


def delta_options(folder: Folder) -> dict[str, str]:
    """The settings of delta-rs for a folder. Source: object_store, AmazonS3ConfigKey."""
    aws.certificates()
    options = {
        "AWS_REGION": folder.region,
        "AWS_ENDPOINT_URL": folder.endpoint,
        "AWS_ALLOW_HTTP": "true" if folder.endpoint.startswith("http://") else "",
        "AWS_REQUEST_PAYER": "requester" if folder.requester_pays else "",
        "AWS_SKIP_SIGNATURE": "true" if folder.anonymous else "",
        "AWS_CONDITIONAL_PUT": "etag",
        "connect_timeout": f"{CONNECT_SECONDS:g}s",
    }
    if not folder.anonymous:
        key = aws.credentials()
        options["AWS_ACCESS_KEY_ID"] = key.access_key
        options["AWS_SECRET_ACCESS_KEY"] = key.secret_key
        options["AWS_SESSION_TOKEN"] = key.session_token or ""
    return {name: word for name, word in options.items() if word}


def hadoop_options(folder: Folder) -> dict[str, str]:
    """The options of Spark's readers for a folder. Source: hadoop-aws, S3A."""
    bucket = f"fs.s3a.bucket.{folder.bucket}"
    chain = "software.amazon.awssdk.auth.credentials.DefaultCredentialsProvider"
    if folder.anonymous:
        chain = "org.apache.hadoop.fs.s3a.AnonymousAWSCredentialsProvider"
    options = {
        "fs.s3.impl": "org.apache.hadoop.fs.s3a.S3AFileSystem",
        f"{bucket}.endpoint.region": folder.region,
        f"{bucket}.aws.credentials.provider": chain,
        f"{bucket}.requester.pays.enabled": str(folder.requester_pays).lower(),
    }
    if folder.endpoint:
        options[f"{bucket}.endpoint"] = folder.endpoint
        options[f"{bucket}.path.style.access"] = "true"
        options[f"{bucket}.connection.ssl.enabled"] = str(
            folder.endpoint.startswith("https")
        ).lower()
    return options
