"""Errors of object stores: what kind each is, and what to do about it.

They are known by their texts: codes of AWS's SDK in those of pyarrow, codes of S3 or texts of the
HTTP client in those of object_store, which delta-rs and obstore are built on, and in botocore's.
"""

import re
from dataclasses import dataclass
from typing import Literal

from mlproject.storage import aws

Kind = Literal[
    "certificate", "network", "busy", "bucket", "region", "key", "access", "missing", "other"
]
OF_THE_MACHINE = ("network", "busy")  # they may be gone when a request is made again

# By kind, the first that matches. Sources: Arrow C++, filesystem/s3_internal.h; S3, "Error
# responses"; the errors of the Rust crates reqwest and rustls.
_TEXTS: tuple[tuple[Kind, str], ...] = (
    ("certificate", r"peer certificate|certificate verify failed|curlCode: 60\b"),
    (
        "network",
        r"AWS Error NETWORK_CONNECTION|error sending request|timed out|connection closed"
        r"|client error \(Connect\)|dns error|body error|decoding response"
        r"|connect to the endpoint|timeout on endpoint|HTTP Client|Connection was closed"
        r"|connect to proxy|SSL validation failed",
    ),
    (
        "busy",
        r"HTTP status (?:5\d\d|429)|\b(?:5\d\d|429) (?:Internal|Bad|Service|Gateway|Too Many)"
        r"|\bSlowDown\b"
        r"|AWS Error (?:SLOW_DOWN|SERVICE_UNAVAILABLE|INTERNAL_FAILURE|THROTTLING)",
    ),
    ("bucket", r"AWS Error NO_SUCH_BUCKET|\bNoSuchBucket\b|\bContainerNotFound\b"),
    ("region", r"HTTP status 301|\b301 Moved|PermanentRedirect|AuthorizationHeaderMalformed"),
    (
        "key",  # it is refused whatever is asked for
        r"ExpiredToken|RequestExpired|InvalidToken|InvalidAccessKeyId|SignatureDoesNotMatch"
        r"|InvalidClientTokenId|calling the AssumeRole|Unable to locate credentials"
        r"|AWS Error (?:INVALID_ACCESS_KEY_ID|SIGNATURE_DOES_NOT_MATCH|INVALID_SIGNATURE"
        r"|INVALID_CLIENT_TOKEN_ID|MISSING_AUTHENTICATION_TOKEN|EXPIRED_TOKEN|REQUEST_EXPIRED"
        r"|UNRECOGNIZED_CLIENT)",
    ),
    (
        "access",
        r"HTTP status 40[13]|\b40[13] (?:Forbidden|Unauthorized)|AccessDenied"
        r"|AWS Error ACCESS_DENIED",
    ),
)


@dataclass(frozen=True, slots=True)
class _Store:
    name: str
    uri: str
    access: str  # what gives access
    server: str  # the variable that names another server
    certificates: str  # the variable that names a file of certificates


_S3 = _Store("S3", "s3://BUCKET/FOLDER", aws.ADVICE, "AWS_ENDPOINT_URL", "AWS_CA_BUNDLE")
_GOOGLE = _Store(
    "Google Cloud Storage",
    "gs://BUCKET/FOLDER",
    "Name a file with the key of an account in GOOGLE_APPLICATION_CREDENTIALS, or set "
    "GOOGLE_SKIP_SIGNATURE=true for a public bucket",
    "GOOGLE_BASE_URL",
    "SSL_CERT_FILE",
)
_AZURE = _Store(
    "Azure",
    "abfss://CONTAINER@ACCOUNT.dfs.core.windows.net/FOLDER",
    "Set AZURE_STORAGE_ACCOUNT_KEY or AZURE_STORAGE_SAS_TOKEN, or AZURE_SKIP_SIGNATURE=true for a "
    "public container",
    "AZURE_STORAGE_ENDPOINT",
    "SSL_CERT_FILE",
)
# By what its clients' texts have. Sources: the crate object_store; AWS's SDK; botocore.
_OF = (
    (_GOOGLE, r"\bGCS error|GoogleCloudStorage"),
    (_AZURE, r"\bMicrosoftAzure error"),
    (_S3, r"\bS3 error|\bAWS Error|calling the \w+ operation|endpoint URL"),
)
_ADVICE: dict[Kind, str] = {
    "certificate": "The server's certificate is not trusted. Name a file with that of its "
    "authority: {store.certificates}",
    "network": "The server cannot be reached. Check the network, or name another server: "
    "{store.server}",
    "busy": "The server fails, or is busy",
    "bucket": "There is no such bucket. Name one: {store.uri}",
    "region": "The bucket is in another region. Name it: AWS_REGION",
    "key": "Access is refused. {store.access}",
    "access": "Access is refused. {store.access}",
    "missing": "The bucket has no such folder. Name one: {store.uri}",
    "other": "Check the message of the server",
}


def kind(error: Exception) -> Kind:
    """What an error of a server, or of the way to it, is about."""
    text = str(error)
    found = next((kind for kind, pattern in _TEXTS if re.search(pattern, text)), None)
    return found or ("missing" if isinstance(error, FileNotFoundError) else "other")


def advice(error: Exception, source: str = "s3:") -> str:
    """What to do about an error, and what the server said, in one line.

    An error whose text names no store is one of the store of `source`.
    """
    store = _store(error) or _store_of(source)
    return f"{_ADVICE[kind(error)].format(store=store)} ({_message(str(error))})"


def uri(source: str) -> str:
    """The form of a URI in the store of a source."""
    return _store_of(source).uri


def _store_of(source: str) -> _Store:
    scheme = source.partition(":")[0]
    return {"gs": _GOOGLE, "abfs": _AZURE, "abfss": _AZURE}.get(scheme, _S3)


def store(error: Exception) -> str:
    """The name of the store whose client an error comes from; "" = it comes from none."""
    found = _store(error)
    return found.name if found else ""


def _store(error: Exception) -> _Store | None:
    return next((store for store, pattern in _OF if re.search(pattern, str(error))), None)


def _message(text: str) -> str:
    """What a text says, without the XML and the debug output that object_store adds."""
    text = text.partition("Debug source:")[0]
    text = text.rpartition(" - ")[2] if "Error performing" in text else text
    codes = [re.search(f"<{tag}>(.*?)</{tag}>", text, re.DOTALL) for tag in ("Code", "Message")]
    said = ": ".join(found[1] for found in codes if found)
    return " ".join((said or re.sub(r"\x1b\[\d+m|↳", " ", text)).split())[:300]
