"""What is there on object storage: pages of a folder, and whether an object is missing.

In S3 by AWS's own client: pyarrow gives a folder whole, and cannot say who pays for a request;
obstore ends at the first key that is no path.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from pyarrow import fs

from mlproject.errors import first_line
from mlproject.storage import aws, s3

# Path, size in bytes, and microseconds since 1970.
File = tuple[str, int, int]

LISTED_AT_ONCE = 16  # pages: each costs a request, at tens of milliseconds


@dataclass(frozen=True, slots=True)
class Page:
    """Some entries of a folder."""

    files: list[File]
    folders: list[str]
    """Paths of folders in it; the last name is "", "." or ".." where it cannot be opened."""
    token: str = ""
    """What the next page is asked for with; "" = there is none."""


def s3_page(source: s3.Folder, path: str, token: str) -> Page:
    """A page of a folder in S3, of up to 1,000 keys.

    Args:
        source: It names the server.
        path: Names of the bucket and of folders in it.
        token: As the page before has it; "" = the first page.

    Raises:
        FileNotFoundError: The source has no object.
        OSError: The server does not answer, or refuses.
    """
    from botocore.exceptions import BotoCoreError, ClientError

    bucket, _, below = path.partition("/")
    prefix = f"{below}/" if below else ""
    asked = {"Bucket": bucket, "Prefix": prefix, "Delimiter": "/", **_payer(source)}
    asked |= {"ContinuationToken": token} if token else {}
    try:
        answer = _client(aws.session(), source, aws.certificates()).list_objects_v2(**asked)
    except (BotoCoreError, ClientError) as error:
        raise OSError(first_line(error)) from error
    objects, folders = answer.get("Contents", []), answer.get("CommonPrefixes", [])
    if prefix and path == source.root and not (token or objects or folders):
        raise FileNotFoundError(f"there is no object below s3://{path}/")
    files = [
        (f"{bucket}/{found['Key']}", found["Size"], int(found["LastModified"].timestamp() * 1e6))
        for found in objects
        if found["Key"] != prefix  # an object without bytes that marks the folder
    ]
    below_it = [f"{bucket}/{found['Prefix'].removesuffix('/')}" for found in folders]
    return Page(files, below_it, answer.get("NextContinuationToken", ""))


def is_missing_in_s3(source: s3.Folder, path: str) -> bool:
    """Whether there is no such object; `path` is names of the bucket and the key.

    Raises:
        OSError: The server does not answer, or refuses.
    """
    from botocore.exceptions import BotoCoreError, ClientError

    bucket, _, key = path.partition("/")
    try:
        client = _client(aws.session(), source, aws.certificates())
        client.head_object(Bucket=bucket, Key=key, **_payer(source))
    except (BotoCoreError, ClientError) as error:
        if "(404)" in str(error):
            return True
        raise OSError(first_line(error)) from error
    return False


def _payer(source: s3.Folder) -> dict[str, str]:
    return {"RequestPayer": "requester"} if source.requester_pays else {}


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
        # Servers other than Amazon's seldom have a name for each bucket.
        s3={"addressing_style": "path" if source.endpoint else "auto"},
    )
    return session.create_client(
        "s3",
        region_name=source.region,
        endpoint_url=source.endpoint or None,
        verify=certificates or None,
        config=config,
    )


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
