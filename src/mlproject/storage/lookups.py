"""What is there on object storage: pages of a folder, and whether an object is missing.

In S3 by AWS's own client: pyarrow gives a folder whole, and cannot say who pays for a request;
obstore ends at the first key that is no path.
"""

import ssl
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from pyarrow import fs

from mlproject.errors import UserError, first_line
from mlproject.storage import aws, s3

# Path, size in bytes, and microseconds since 1970.
File = tuple[str, int, int]

LISTED_AT_ONCE = 16  # pages: each costs a request, at tens of milliseconds
NOT_FOUND = 404


@dataclass(frozen=True, slots=True)
class Page:
    """Some entries of a folder."""

    files: list[File]
    folders: list[str]
    """Paths of folders in it; the last name is "", "." or ".." where it cannot be opened."""
    token: str = ""
    """What the next page is asked for with; "" = there is none."""


def s3_page(client: Any, source: s3.Folder, path: str, token: str) -> Page:
    """A page of a folder in S3, of up to 1,000 keys.

    Args:
        client: As `s3_client` gives it.
        source: What is listed.
        path: Names of the bucket and of folders in it.
        token: As the page before has it; "" = the first page.

    Raises:
        FileNotFoundError: The source has no object.
        OSError: The server does not answer, or refuses.
    """
    bucket, _, below = path.partition("/")
    prefix = f"{below}/" if below else ""
    asked = {"Bucket": bucket, "Prefix": prefix, "Delimiter": "/", **_payer(source)}
    asked |= {"ContinuationToken": token} if token else {}
    try:
        answer = client.list_objects_v2(**asked)
    except Exception as error:  # its parser raises errors of any kind
        raise _error(error) from error
    objects, folders = answer.get("Contents", []), answer.get("CommonPrefixes", [])
    following = answer.get("NextContinuationToken", "")
    if answer.get("IsTruncated") and not following:
        raise OSError("the server's listing ends in the middle")
    if prefix and path == source.root and not (token or objects or folders or following):
        raise FileNotFoundError("no key begins so")
    files = [
        (f"{bucket}/{found['Key']}", found["Size"], _seconds(found) * 1_000_000)
        for found in objects
        if found["Key"] != prefix  # an object without bytes that marks the folder
    ]
    below_it = [f"{bucket}/{found['Prefix'].removesuffix('/')}" for found in folders]
    return Page(files, below_it, following)


def _seconds(found: dict[str, Any]) -> int:
    """Since 1970, without a fraction: only some servers list it, and answers to HEAD have none."""
    modified = found.get("LastModified")
    return int(modified.timestamp()) if modified else 0


def is_missing_in_s3(client: Any, source: s3.Folder, path: str) -> bool:
    """Whether there is no such object; `path` is names of the bucket and the key, or of a bucket.

    Raises:
        OSError: The server does not answer, or refuses.
    """
    bucket, _, key = path.partition("/")
    try:
        if key:
            client.head_object(Bucket=bucket, Key=key, **_payer(source))
        else:
            client.head_bucket(Bucket=bucket)  # nobody pays for it
    except Exception as error:  # as above
        if _status(error) == NOT_FOUND:
            return True
        raise _error(error) from error
    return False


def _payer(source: s3.Folder) -> dict[str, str]:
    return {"RequestPayer": "requester"} if source.requester_pays else {}


def _status(error: Exception) -> int | None:
    """The status of the answer that an error of botocore is about, if there was one."""
    answer = getattr(error, "response", None) or {}
    status: int | None = answer.get("ResponseMetadata", {}).get("HTTPStatusCode")
    return status


def _error(error: Exception) -> OSError:
    status = _status(error)
    return OSError(f"{first_line(error)}{f' (HTTP status {status})' if status else ''}")


def s3_client(source: s3.Folder) -> Any:
    """AWS's own client for the server of a folder; threads may share it. Makes no request.

    Raises:
        UserError: The name of the server cannot be used.
    """
    return _client(aws.session(), source, aws.certificates())


@lru_cache(8)
def _client(session: Any, source: s3.Folder, certificates: str) -> Any:
    from botocore import UNSIGNED
    from botocore.config import Config

    config = Config(
        connect_timeout=s3.CONNECT_SECONDS,
        read_timeout=s3.SILENT_SECONDS,
        retries={"mode": "standard", "total_max_attempts": s3.ATTEMPTS},
        max_pool_connections=LISTED_AT_ONCE,
        signature_version=UNSIGNED if source.anonymous else None,
        ignore_configured_endpoint_urls=True,  # a source may name Amazon's, beside another one
        # Servers other than Amazon's seldom have a name for each bucket.
        s3={"addressing_style": "path" if source.endpoint else "auto"},
    )
    try:
        return session.create_client(
            "s3",
            region_name=source.region,
            endpoint_url=source.endpoint or None,
            # Else botocore takes its own, and not those of the system.
            verify=certificates or ssl.get_default_verify_paths().cafile or None,
            config=config,
        )
    except ValueError as error:
        raise UserError(f"The server {source.endpoint!r} cannot be used: {error}") from error


def pyarrow_page(filesystem: fs.FileSystem, root: str, path: str) -> Page:
    """All entries of a folder of a file system that pyarrow knows; `root` must be there.

    Raises:
        OSError: The server does not answer, or refuses.
    """
    below = fs.FileSelector(path, allow_not_found=path != root)
    files, folders = [], []
    for found in filesystem.get_file_info(below):
        if found.type == fs.FileType.File:
            files.append((found.path, found.size, found.mtime_ns // 1000))
        else:
            # pyarrow gives the path of the folder itself for one in it that has no name.
            folders.append(f"{path}/" if found.path == path else found.path)
    return Page(files, folders)
