"""Tables of labels as people have them: text files and Delta tables, and paths in any spelling."""

import codecs
import posixpath
import unicodedata
from collections.abc import Iterator
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

from mlproject.errors import UserError
from mlproject.ingestion.known_files import bounds, within
from mlproject.ingestion.labels import TEXTS
from mlproject.ingestion.source_listing import Listing
from mlproject.lake.queries import foreign, query
from mlproject.storage.local_files import local_path
from mlproject.storage.object_storage import blocks

KEYS = {  # names of columns, in lower case, and which of ours each is
    **dict.fromkeys(("path", "file_name", "filename", "file_path", "filepath"), "path"),
    "image_id": "image_id",
}
EXAMPLES = 3  # of labels that match no image
_SEPARATORS = ",;\t"
_ENCODINGS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16"}
_ENCODINGS[codecs.BOM_UTF16_BE] = "utf-16"


def read(option: str, listed: Listing, lake: str) -> pa.Table:
    """The labels of a text file or a Delta table: path or image_id, and label ("" = null).

    Paths become those of files in the source, or of images in the lake, that they name in another
    spelling; others stay as they are.

    Raises:
        UserError: There is no such table, it has other columns, two labels for one image, or
            paths of which none is that of an image.
    """
    rows = _read(option)
    key = rows.column_names[0]
    if key == "path":
        rows = rows.set_column(0, key, _paths(option, rows[key], listed, lake))
    label = pc.if_else(pc.equal(rows["label"], ""), None, rows["label"])
    rows = pa.table({key: rows[key], "label": label}).group_by([key, "label"]).aggregate([])
    counts = rows.group_by(key).aggregate([("label", "count", pc.CountOptions(mode="all"))])
    twice = counts.filter(pc.greater(counts["label_count"], 1))[key]
    if len(twice):
        raise UserError(f"labels={option!r} has two labels for {key} {twice[0].as_py()!r}")
    return rows


def _read(option: str) -> pa.Table:
    """The columns of a table: path or image_id, and label, as strings."""
    is_text = option.lower().endswith(TEXTS)
    found = _read_text(option) if is_text else foreign(option, [*KEYS, "label"])
    ours = {name: KEYS.get(name.strip().lower(), "") for name in found.column_names}
    keys = [name for name in found.column_names if ours[name]]
    labels = [name for name in found.column_names if name.strip().lower() == "label"]
    if len(keys) != 1 or len(labels) != 1:
        raise UserError(
            f"labels={option!r} has the columns {', '.join(found.column_names)}. "
            "It needs label, and either path or image_id"
        )
    try:
        names, given = (found[name].cast(pa.string()) for name in (keys[0], labels[0]))
    except pa.ArrowException as error:
        raise UserError(
            f"labels={option!r}: the columns {keys[0]} and {labels[0]} must be strings ({error})"
        ) from error
    return pa.table({ours[keys[0]]: names, "label": given})


def _paths(option: str, names: pa.ChunkedArray, listed: Listing, lake: str) -> pa.Array:
    """Paths of a table of labels, as the files of the source and the images of the lake have them.

    Raises:
        UserError: None of them is such a path, though there are files or images.
    """
    there = set(listed.files["path"].to_pylist())
    missing = [
        name for name in names.to_pylist() if name and _whole(name, listed.root) not in there
    ]
    if missing:
        sql = f"SELECT DISTINCT path FROM images WHERE {within(*bounds(listed.root))}"
        there.update(query(lake, sql, ["images"])["path"].to_pylist())
    forms = {unicodedata.normalize("NFC", path): path for path in there if not path.isascii()}
    found = [name and _matched(name, listed.root, there, forms) for name in names.to_pylist()]
    if there and not any(path in there for path in found):
        elsewhere = query(lake, "SELECT DISTINCT path FROM images", ["images"])["path"]
        if not pc.any(pc.is_in(pa.array(found, pa.string()), elsewhere.combine_chunks())).as_py():
            raise UserError(
                f"labels={option!r}: none of its {len(found)} paths is that of an image. It has "
                f"{next((name for name in names.to_pylist() if name), '')!r}, the source has "
                f"{min(there)!r}"
            )
    return pa.array(found, pa.string())


def _matched(name: str, root: str, there: set[str], forms: dict[str, str]) -> str:
    """The path that a name in a table of labels means; where none is, the name as one."""
    for spelling in _spellings(name, root):
        path = spelling if spelling in there else forms.get(unicodedata.normalize("NFC", spelling))
        if path:
            return path
    return _whole(name, root)


def _spellings(name: str, root: str) -> Iterator[str]:
    """The paths that a name may mean, the likeliest first."""
    yield _whole(name, root)
    slashed = name.replace("\\", "/")
    for one in dict.fromkeys((name, slashed, unquote(name), unquote(slashed))):
        scheme, separator, path = one.partition("://")
        if separator:
            names = {"s3a": "s3", "s3n": "s3", "abfs": "abfss"}
            yield f"{names.get(scheme.lower(), scheme.lower())}://{path}"
            continue
        below = posixpath.normpath(one)
        yield _whole(below, root)
        parts = below.split("/")  # it may begin with the last folders of the source
        for count in range(1, len(parts)):
            if f"/{root}".endswith(f"/{'/'.join(parts[:count])}"):
                yield f"{root}/{'/'.join(parts[count:])}"


def _whole(name: str, root: str) -> str:
    """A path as in the tables."""
    if name.startswith("/") or "://" in name:
        return name
    if name.startswith("file:"):
        return str(local_path(name))
    return f"{root.rstrip('/')}/{name}"


def unmatched(lake: str, given: pa.Table) -> str:
    """A sentence about given labels that match no image; empty when all match one."""
    key = given.column_names[0]
    known = query(lake, f"SELECT DISTINCT {key} FROM images", ["images"])[key]
    lost = given[key].filter(pc.invert(pc.is_in(given[key], known.combine_chunks())))
    if not len(lost):
        return ""
    there = f"; {key} in the table looks like {known[0].as_py()!r}" if len(known) else ""
    examples = ", ".join(map(repr, lost[:EXAMPLES].to_pylist()))
    return f"{len(lost)} of {given.num_rows} labels match no image, for example {examples}{there}"


def _read_text(option: str) -> pa.Table:
    """A text file of strings, divided by the separator that its first line has most often."""
    path = option if "://" in option else str(local_path(option))
    try:
        content = b"".join(blocks(path))
        encoding = next((_ENCODINGS[bom] for bom in _ENCODINGS if content.startswith(bom)), "utf-8")
        text = content.decode(encoding)
        first = text.partition("\n")[0]
        parsing = csv.ParseOptions(delimiter=max(_SEPARATORS, key=first.count))
        whole = pa.BufferReader(text.encode())
        names = csv.open_csv(whole, parse_options=parsing).schema.names
        kinds = csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string()))
        whole.seek(0)
        return csv.read_csv(whole, parse_options=parsing, convert_options=kinds)
    except (OSError, UnicodeDecodeError, pa.ArrowInvalid) as error:
        raise UserError(f"labels={option!r} cannot be read ({error})") from error
