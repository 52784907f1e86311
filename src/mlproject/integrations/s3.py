"""Folders in S3: their URIs, timeouts, and advice for the errors of a server."""

import os
import re
from dataclasses import dataclass
from urllib.parse import parse_qsl, urlencode

from pyarrow import fs

from mlproject.errors import UserError

# Timeouts of one request. pyarrow's defaults of 1 s and 3 s are too short for a busy server;
# ATTEMPTS is its default.
CONNECT_SECONDS = 5.0  # for a connection
SILENT_SECONDS = 10.0  # for the next byte
ATTEMPTS = 3

CREDENTIALS = (
    "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, for a user who may list "
    "the bucket and read its objects"
)

# What to do about an error code of the SDK. Source: Arrow C++, filesystem/s3_internal.h
FAULTS = {
    "NETWORK_CONNECTION": "The server cannot be reached. Check the network, or name another "
    "server: AWS_ENDPOINT_URL, or ?endpoint_override=URL in the source",
    "NO_SUCH_BUCKET": "There is no such bucket. Name one: -P source=s3://BUCKET/FOLDER",
    "301": "The bucket is in another region. Name it: ?region=NAME in the source",
}
REFUSALS = (
    *("403", "ACCESS_DENIED", "INVALID_ACCESS_KEY_ID", "SIGNATURE_DOES_NOT_MATCH"),
    *("INVALID_SIGNATURE", "INVALID_CLIENT_TOKEN_ID", "MISSING_AUTHENTICATION_TOKEN"),
    *("EXPIRED_TOKEN", "REQUEST_EXPIRED", "UNRECOGNIZED_CLIENT"),
)


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder in a bucket, and its server."""

    root: str
    """Names of the bucket and the folder, as in the keys of objects."""
    endpoint: str
    """URL of the server; "" = Amazon's."""
    region: str
    """Name of the region; servers other than Amazon's accept any."""

    def uri(self) -> str:
        """The folder as a source URI that needs only credentials from the environment."""
        settings = {"endpoint_override": self.endpoint, "region": self.region}
        return f"s3://{self.root}?{urlencode(settings, safe=':/')}"


def folder(source: str) -> Folder:
    """The folder of `s3://BUCKET/FOLDER?endpoint_override=URL&region=NAME&scheme=http`.

    The name of the folder is written as in the keys, as in AWS's tools: `%41` is not `A`. Without
    settings after the "?", the server is AWS_ENDPOINT_URL_S3 or AWS_ENDPOINT_URL, else Amazon's,
    which is asked for the region of the bucket.

    Raises:
        UserError: The URI is invalid, or the region of the bucket is unknown.
    """
    place, _, query = source.removeprefix("s3://").partition("?")
    given = dict(parse_qsl(query, keep_blank_values=True))
    environment = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    endpoint = given.get("endpoint_override", environment) or ""
    if "@" in place.split("/")[0] or "@" in endpoint:
        raise UserError(
            "A source and the URL of its server must not contain credentials: everybody can read "
            f"them. {CREDENTIALS}"
        )
    parts = [part for part in place.split("/") if part]
    unknown = sorted(given.keys() - {"endpoint_override", "region", "scheme"})
    if not parts or {".", ".."} & set(parts):
        raise UserError(
            f"Source {source!r} names no bucket and folder. Write: -P source=s3://BUCKET/FOLDER"
        )
    if unknown:
        raise UserError(
            f"Source {f's3://{place}'!r} has unknown settings: {', '.join(unknown)} "
            "(known: endpoint_override, region, scheme)"
        )
    if endpoint and "://" not in endpoint:
        endpoint = f"{given.get('scheme', 'https')}://{endpoint}"
    if endpoint and not endpoint.startswith(("http://", "https://")):
        raise UserError(
            f"{endpoint!r}, the server of source {source!r}, is not a URL. Write http://HOST:PORT"
        )
    region = given.get("region")
    if endpoint and not region:  # with which requests to other servers than Amazon's are signed
        region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"
    return Folder("/".join(parts), endpoint, region or _region(source, parts[0]))


def _region(source: str, bucket: str) -> str:
    try:
        return str(fs.resolve_s3_region(bucket))
    except OSError as error:
        raise UserError(f"Source {source!r} cannot be opened. {advice(error)}") from error


def filesystem(folder: Folder) -> fs.S3FileSystem:
    """The file system of a folder, with the credentials that the AWS SDK finds.

    Makes no request.
    """
    return fs.S3FileSystem(
        endpoint_override=folder.endpoint or None,
        region=folder.region,
        connect_timeout=CONNECT_SECONDS,
        request_timeout=SILENT_SECONDS,
        retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=ATTEMPTS),
    )


def advice(error: OSError) -> str:
    """What to do about an error, and the message of the SDK, in one line."""
    if is_refusal(error):
        action = f"Access is refused. {CREDENTIALS}"
    elif isinstance(error, FileNotFoundError):
        action = "The bucket has no such folder. Name one: -P source=s3://BUCKET/FOLDER"
    else:
        action = FAULTS.get(_code(error), "Check the message of the server")
    return f"{action} ({' '.join(str(error).split())})"


def is_refusal(error: OSError) -> bool:
    """Whether a server answered and refused access."""
    return _code(error) in REFUSALS


def is_broken(error: OSError) -> bool:
    """Whether a connection to a server failed, broke or timed out."""
    return _code(error) == "NETWORK_CONNECTION"


def _code(error: OSError) -> str:
    """The error code of the SDK, or the HTTP status where it has none; "" for other errors."""
    found = re.search(r"AWS Error (\w+)(?: \(HTTP status (\d+)\))? during", str(error))
    return found[2] or found[1] if found else ""
