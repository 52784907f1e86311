"""The selection of images to erase: paths, a folder, image_ids, or a list of them in a file."""

import re
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from mlproject.errors import UserError
from mlproject.lake.schemas import IMAGE_ID

WHOLE = re.compile(r"/|[a-zA-Z][\w+.-]*:")  # how an absolute path, or a URI, begins
EVERYTHING = re.compile(r"([a-zA-Z][\w+.-]*:)?/*")  # the root of a file system, or of all buckets


@dataclass(frozen=True, slots=True)
class Selection:
    """Selected images: by path, by folder, by image_id, or by a list of paths and image_ids."""

    paths: frozenset[str] = frozenset()
    """Whole paths, as in the column `path`."""
    prefix: str = ""
    """Every path that begins with it, which ends in a slash; empty = none."""
    image_ids: frozenset[str] = frozenset()
    """Sha256 of contents."""

    def named(self, rows: pa.Table) -> pa.Table:
        """The rows that it selects by their path or image_id."""
        if self.prefix:
            return rows.filter(pc.fill_null(pc.starts_with(rows["path"], self.prefix), False))
        by_path = pc.is_in(rows["path"], pa.array(self.paths, pa.string()))
        return rows.filter(
            pc.or_(by_path, pc.is_in(rows["image_id"], pa.array(self.image_ids, pa.string())))
        )


def selection(*, path: str = "", prefix: str = "", image_id: str = "", file: str = "") -> Selection:
    """What exactly one of these options of `erase` selects.

    Raises:
        UserError: None or several are given, one is malformed, or the file cannot be read.
    """
    options = {"path": path, "prefix": prefix, "image_id": image_id, "file": file}
    given = [name for name, value in options.items() if value]
    if len(given) != 1:
        raise UserError(
            f"Name exactly one of path, prefix, image_id and file (given: "
            f"{', '.join(given) or 'none'}), for example -P path=/photos/1.jpg"
        )
    if file:
        return _listed(file)
    if image_id:
        ids = [word.strip() for word in image_id.split(",")]
        wrong = [word for word in ids if not IMAGE_ID.fullmatch(word)]
        if wrong:
            raise UserError(f"image_id={wrong[0]!r} is not a sha256 of 64 hex digits")
        return Selection(image_ids=frozenset(word.lower() for word in ids))
    if not WHOLE.match(path or prefix):
        raise UserError(
            f"{given[0]}={path or prefix!r} is not absolute. Write it as in the column `path` of "
            "table images: it begins with '/', or with a scheme such as 's3://'"
        )
    if path:
        return Selection(paths=frozenset([path]))
    if EVERYTHING.fullmatch(prefix):
        raise UserError(f"prefix={prefix!r} would select all images. Use /FOLDER or s3://BUCKET")
    return Selection(prefix=f"{prefix.rstrip('/')}/")


def _listed(file: str) -> Selection:
    try:
        text = Path(file).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"File {file!r} cannot be read ({error})") from error
    lines = [line.removesuffix("\r") for line in text.split("\n")]
    numbers = {line: number for number, line in enumerate(lines, start=1) if line.strip()}
    for line, number in numbers.items():
        if not WHOLE.match(line) and not IMAGE_ID.fullmatch(line):
            raise UserError(
                f"Line {number} of {file!r} is neither an absolute path ('/...' or "
                f"'s3://...') nor an image_id of 64 hex digits: {line!r}"
            )
    if not numbers:
        raise UserError(f"File {file!r} is empty. Write one path or image_id in each line")
    ids = {line for line in numbers if IMAGE_ID.fullmatch(line)}
    return Selection(frozenset(numbers.keys() - ids), "", frozenset(line.lower() for line in ids))
