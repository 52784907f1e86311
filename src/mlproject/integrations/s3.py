"""Folders in S3: how their URIs are read, how long a server is waited for, what refusals mean."""

import os
import re
from dataclasses import dataclass
from urllib.parse import parse_qsl, urlencode

from pyarrow import fs

from mlproject.errors import UserError

# What the AWS SDK waits at most for one request. Source: pyarrow's defaults are 1 s and 3 s, too
# short for a server that is busy; ATTEMPTS is its default.
CONNECT_SECONDS = 5.0  # for a connection
SILENT_SECONDS = 10.0  # for the next byte
ATTEMPTS = 3

CREDENTIALS = (
    "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, of somebody who may list "
    "the bucket and read its objects"
)

# What the SDK's words for a fault tell a person to do. Source: Arrow C++, filesystem/s3_internal.h
FAULTS = {
    "NETWORK_CONNECTION": "The server cannot be reached. Check the network, or name another "
    "server: AWS_ENDPOINT_URL, or ?endpoint_override=URL in the source",
    "NO_SUCH_BUCKET": "There is no such bucket there. Name one: -P source=s3://BUCKET/FOLDER",
    "301": "The bucket lies in another region. Name it: ?region=NAME in the source",
}
REFUSALS = (
    *("403", "ACCESS_DENIED", "INVALID_ACCESS_KEY_ID", "SIGNATURE_DOES_NOT_MATCH"),
    *("INVALID_SIGNATURE", "INVALID_CLIENT_TOKEN_ID", "MISSING_AUTHENTICATION_TOKEN"),
    *("EXPIRED_TOKEN", "REQUEST_EXPIRED", "UNRECOGNIZED_CLIENT"),
)


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder of a bucket, and the server that has it."""

    root: str
    """The bucket's name and the folder's, as keys have it."""
    endpoint: str
    """The server's URL; "" = Amazon's."""
    region: str
    """The region's name; servers of one's own take any."""

    def uri(self) -> str:
        """The folder as a source that needs no environment but credentials."""
        settings = {"endpoint_override": self.endpoint, "region": self.region}
        return f"s3://{self.root}?{urlencode(settings, safe=':/')}"


def folder(source: str) -> Folder:
    """What `s3://BUCKET/FOLDER?endpoint_override=URL&region=NAME&scheme=http` names.

    The folder's name is written as keys have it, as AWS's own tools do: `%41` is no `A`. Without
    settings behind the "?", the server is the one of AWS_ENDPOINT_URL_S3 or AWS_ENDPOINT_URL, else
    Amazon's, of which the bucket's region is asked.

    Raises:
        UserError: It is no such URI, or the bucket's region cannot be had.
    """
    place, _, query = source.removeprefix("s3://").partition("?")
    given = dict(parse_qsl(query, keep_blank_values=True))
    environment = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    endpoint = given.get("endpoint_override", environment) or ""
    if "@" in place.split("/")[0] or "@" in endpoint:
        raise UserError(
            "A source and its server's URL must not hold credentials: everybody could read them. "
            f"{CREDENTIALS}"
        )
    parts = [part for part in place.split("/") if part]
    unknown = sorted(given.keys() - {"endpoint_override", "region", "scheme"})
    if not parts or {".", ".."} & set(parts):
        raise UserError(
            f"Source {source!r} names no bucket and folder: -P source=s3://BUCKET/FOLDER"
        )
    if unknown:
        raise UserError(
            f"Source {f's3://{place}'!r} has settings that are not known: {', '.join(unknown)} "
            "(known: endpoint_override, region, scheme)"
        )
    if endpoint and "://" not in endpoint:
        endpoint = f"{given.get('scheme', 'https')}://{endpoint}"
    if endpoint and not endpoint.startswith(("http://", "https://")):
        raise UserError(f"Server {endpoint!r} of source {source!r} is none: name http://HOST:PORT")
    region = given.get("region") or (_own_region() if endpoint else _region(source, parts[0]))
    return Folder("/".join(parts), endpoint, region)


def _own_region() -> str:
    """What requests to a server that is not Amazon's are signed for."""
    return os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"


def _region(source: str, bucket: str) -> str:
    try:
        return str(fs.resolve_s3_region(bucket))
    except OSError as error:
        raise UserError(f"Source {source!r} cannot be opened. {advice(error)}") from error


def filesystem(folder: Folder) -> fs.S3FileSystem:
    """The server that has a folder, with credentials as the AWS SDK finds them.

    No bucket is asked for here.
    """
    return fs.S3FileSystem(
        endpoint_override=folder.endpoint or None,
        region=folder.region,
        connect_timeout=CONNECT_SECONDS,
        request_timeout=SILENT_SECONDS,
        retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=ATTEMPTS),
    )


def advice(error: OSError) -> str:
    """What to do about a fault, and the fault in the SDK's words, in one line."""
    if is_refusal(error):
        told = f"Access is refused. {CREDENTIALS}"
    elif isinstance(error, FileNotFoundError):
        told = "The bucket has no such folder. Name one: -P source=s3://BUCKET/FOLDER"
    else:
        told = FAULTS.get(_fault(error), "The server's words tell why")
    return f"{told} ({' '.join(str(error).split())})"


def is_refusal(error: OSError) -> bool:
    """Whether a server has answered, and will not have this caller."""
    return _fault(error) in REFUSALS


def is_broken(error: OSError) -> bool:
    """Whether a connection to a server could not be made, broke, or fell silent."""
    return _fault(error) == "NETWORK_CONNECTION"


def _fault(error: OSError) -> str:
    """The SDK's word for a fault, or the HTTP status where it has none; "" for other errors."""
    found = re.search(r"AWS Error (\w+)(?: \(HTTP status (\d+)\))? during", str(error))
    return found[2] or found[1] if found else ""
