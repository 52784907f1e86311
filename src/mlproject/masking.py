"""Passwords, tokens and signatures in text, which are shown as ***.

Text leaves this project as output, errors, pages, parameters and tags of MLflow, and reasons in
tables: each of these places calls `mask`.
"""

import os
import re
from collections.abc import Iterator, Mapping
from urllib.parse import quote, unquote

MASK = "***"
SHORTEST = 8  # characters of a value that is masked wherever it stands: shorter ones are in words

# USER:PASSWORD@ after the :// of a URI, also of a password that is not percent-encoded. In
# host:5000/a@b the digits are a port.
_USER = r"[^\s/:@?#'\"<>\[]*:(?!\d+(?:[/?#\s'\"]|$))[^\s'\"<>@]*(?:@[^\s/'\"<>@]*)*@"
_VALUE = r"(?:'[^']*'|\"[^\"]*\"|[^\s&;,'\"<>)]+)"
_SHOWN_BEFORE = (
    rf"(?<=://){_USER}",
    # TOKEN@ of a web address; of other URIs it is a user (postgresql://) or container (abfss://).
    r"(?<=http://|ttps://)[^\s/?#'\"<>@]+@",
)
_SHOWN_AFTER = (
    # password=VALUE, MLFLOW_TRACKING_TOKEN=VALUE; not $(command) or $NAME, which a shell replaces.
    r"((?:password|passwd|pwd|secret|token|(?:access|account|api|encryption)[._]?key(?:\.[\w.]+)?|\bsig)=)"
    rf"(?!\$){_VALUE}",
    r"(['\"](?:\w*password|token)['\"]: ?(['\"])).*?(?=\2)",
    # Of presigned URLs. Sources: AWS's signature versions 2 and 4, Google's signed URLs.
    r"(\b(?:X-(?:Amz|Goog)-(?:Signature|Credential|Security-Token)|Signature|AWSAccessKeyId)=)"
    rf"{_VALUE}",
    r"(authorization['\"]?[:=] ?['\"]?(?:basic|bearer|digest|aws4-hmac-sha256) )[^'\"\r\n]+",
    r"(\bbearer )[\w.~+/=-]{16,}",
)
_PATTERNS = (
    *((re.compile(pattern, re.IGNORECASE), f"{MASK}@") for pattern in _SHOWN_BEFORE),
    *((re.compile(pattern, re.IGNORECASE), rf"\g<1>{MASK}") for pattern in _SHOWN_AFTER),
)
# Environment variables with a secret, by the ends of their names, and those of a URI with one.
_SECRET = re.compile(r"(?:PASSWORD|PASSWD|TOKEN|SECRET|(?:ACCESS|ACCOUNT|ENCRYPTION|API)_KEY)$")
_URIS = ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI")


def mask(text: str, environment: Mapping[str, str] = os.environ) -> str:
    """A text with *** in the place of each secret; a masked text stays as it is.

    Secrets are known by what stands around them, and by the values of `environment`: libraries
    print the password of a URI decoded, for example.
    """
    for secret in sorted(_secrets(environment), key=len, reverse=True):
        text = text.replace(secret, MASK)
    for pattern, shown in _PATTERNS:
        text = pattern.sub(shown, text)
    return text


def is_ambiguous(uri: str) -> bool:
    """Whether the password in a URI has characters that end it for some libraries, such as /."""
    found = re.match(_USER, uri.partition("://")[2])
    return found is not None and re.search(r"[/?#@]", found[0][:-1]) is not None


def _secrets(environment: Mapping[str, str]) -> set[str]:
    values = {value for name, value in environment.items() if _SECRET.search(name)}
    for name in _URIS:
        values |= set(_passwords(environment.get(name, "")))
    found = {form for value in values for form in (value, unquote(value), quote(value, safe=""))}
    return {secret for secret in found if len(secret) >= SHORTEST}


def _passwords(uri: str) -> Iterator[str]:
    userinfo = uri.partition("://")[2].rpartition("@")[0]
    if ":" in userinfo:
        yield userinfo.partition(":")[2]
