"""The tables of a lake: their columns and what these mean, partitions, and who makes each."""

import re

import pyarrow as pa

from mlproject.errors import UserError

TIME = pa.timestamp("us", "UTC")

# Table -> column -> type and meaning.
COLUMNS: dict[str, dict[str, tuple[pa.DataType, str]]] = {
    "images": {
        "path": (pa.string(), "location of the file: an absolute path, or a URI"),
        "image_id": (pa.string(), "sha256 of the file's bytes, 64 hex digits"),
        "size_bytes": (pa.int64(), "size of the file"),
        "modified_at": (TIME, "when the file was modified, by its file system"),
        "format": (pa.string(), "Pillow's name of the format, such as JPEG; null = unknown"),
        "width": (pa.int32(), "pixels as stored, before EXIF orientation"),
        "height": (pa.int32(), "pixels as stored, before EXIF orientation"),
        "label": (pa.string(), "the label at ingest; the newest row of `labels` replaces it"),
        "content": (pa.binary(), "the file's bytes; null = read them from `path`"),
        "thumbnail": (pa.binary(), "a small JPEG; null = the option was off"),
        "error": (pa.string(), "why the file is no readable image; null = it is"),
        "ingested_at": (TIME, "when its micro-batch was ingested: the same for the whole commit"),
    },
    # What was seen at a path since its row in `images`; made when there is something to note.
    "files": {
        "path": (pa.string(), "as in `images`"),
        "size_bytes": (pa.int64(), "size of the file"),
        "modified_at": (TIME, "when the file was modified"),
        "image_id": (pa.string(), "sha256 of the bytes that were seen"),
        "state": (pa.string(), "`unchanged`, `gone` or `erased`"),
        "at": (TIME, "when it was seen"),
    },
    # Labels given after ingest: the newest row of an image and path replaces `images.label`.
    "labels": {
        "image_id": (pa.string(), "as in `images`"),
        "path": (pa.string(), "as in `images`"),
        "label": (pa.string(), "the label; null = it has none from then on"),
        "source": (pa.string(), "the table or file that it was read from"),
        "at": (TIME, "when it was given"),
    },
    "predictions": {
        "image_id": (pa.string(), "as in `images`"),
        "model_name": (pa.string(), "name of the registered model"),
        "model_version": (pa.int32(), "number of the version"),
        "label": (pa.string(), "the most likely label; null beside an error"),
        "score": (pa.float64(), "its score, 0 to 1; null beside an error"),
        "top_labels": (pa.list_(pa.string()), "the most likely labels, the best first"),
        "top_scores": (pa.list_(pa.float64()), "their scores, 0 to 1"),
        "error": (pa.string(), "why there is no label; null = there is one"),
        "model_id": (pa.string(), "MLflow's id of the logged model"),
        "run_id": (pa.string(), "the MLflow run that made the row"),
        "images_version": (pa.int64(), "the Delta version of `images` that was read"),
        "scored_at": (TIME, "when its micro-batch began to be scored"),
    },
    "rollouts": {
        "pointer": (pa.string(), "the alias or stage, as a URI"),
        "model_name": (pa.string(), "name of the registered model"),
        "model_version": (pa.int32(), "number of the version"),
        "model_id": (pa.string(), "MLflow's id of the logged model"),
        "state": (pa.string(), "`scoring`, `serving`, `superseded` or `failed`"),
        "coverage": (pa.float64(), "share of the images with a prediction of the version, 0 to 1"),
        "images": (pa.int64(), "different images that there were"),
        "answered": (pa.int64(), "images among them with a prediction, errors included"),
        "errors": (pa.int64(), "images among those with an error"),
        "reason": (pa.string(), "why the state is as it is"),
        "run_id": (pa.string(), "the MLflow run of the roll-out"),
        "images_version": (pa.int64(), "the Delta version of `images` that was counted"),
        "images_table": (pa.string(), "Delta's id of that table"),
        "predictions_version": (pa.int64(), "the Delta version of `predictions`; -1 = no table"),
        "predictions_table": (pa.string(), "Delta's id of that table"),
        "at": (TIME, "when the row was written"),
    },
    "erased": {
        "image_id": (pa.string(), "sha256 of bytes that were erased"),
        "size_bytes": (pa.int64(), "their size; null = unknown"),
        "at": (TIME, "when they were erased"),
    },
    # What each source keeps, and what its last listing found: the row with the highest number.
    "sources": {
        "uri": (pa.string(), "the folder of its files, as their paths begin"),
        "settings": (pa.string(), "JSON: the options of `ingest` that were given for it"),
        "since": (TIME, "since when it has these settings"),
        "listed_at": (TIME, "when it was listed; null = no ingest of it has ended"),
        "files": (pa.int64(), "image files that were listed then"),
        "backlog": (pa.int64(), "new and changed files that were not ingested then"),
        "number": (pa.int64(), "number of the row: of a source the highest one holds"),
    },
    # Which watch works on what, where there are several; renewals stand in the log alone.
    "leases": {
        "subject": (pa.string(), "the alias, stage or source that is worked on"),
        "number": (pa.int64(), "number of the lease when it was taken"),
        "holder": (pa.string(), "id of the watch that took it"),
        "host": (pa.string(), "its machine or container"),
        "space": (pa.string(), "boot and namespace of its process; empty = not known"),
        "pid": (pa.int64(), "number of its process"),
        "interval_s": (pa.float64(), "seconds between two renewals"),
        "at": (TIME, "when it was taken, by the clock of that machine"),
    },
}
SCHEMAS = {
    table: pa.schema([(name, kind) for name, (kind, _) in columns.items()])
    for table, columns in COLUMNS.items()
}
TABLES = tuple(COLUMNS)
PARTITIONS = {"predictions": ["model_name", "model_version"]}
# Delta's settings of single tables. The commits of `leases` are many, and nobody needs them later.
SETTINGS = {"leases": {"delta.logRetentionDuration": "interval 1 day"}}
# Columns that tables of older releases lack: null there, and added by the next append.
ADDED = {
    "rollouts": (
        *("images", "answered", "errors", "reason", "run_id"),
        *("images_table", "predictions_version", "predictions_table"),
    )
}
IMAGE_ID = re.compile("[0-9a-fA-F]{64}")  # sha256 as a person may write it

_MADE_BY = {
    "images": "ingest -P source=FOLDER",
    "files": "ingest -P source=FOLDER",
    "labels": "ingest -P source=FOLDER -P labels=FILE.csv",
    "predictions": "score -P model=models:/photos@champion",
    "rollouts": "rescore -P pointers=models:/photos@champion",
    "erased": "erase -P file=LIST",
    "sources": "ingest -P source=FOLDER",
    "leases": "watch -P source=FOLDER",
}


def no_table(path: str, table: str) -> UserError:
    """The error that a table has not been made yet."""
    return UserError(f"There is no table {path!r} yet. Run: mlflow run . -e {_MADE_BY[table]}")


def require_columns(found: pa.Schema, table: str, path: str) -> None:
    """Raises UserError where a column of ours lacks or has another type; others may be added."""
    types = dict(zip(found.names, found.types, strict=True))
    for field in SCHEMAS[table]:
        if field.name in ADDED.get(table, ()) and field.name not in types:
            continue
        if types.get(field.name) != field.type:
            raise UserError(
                f"Table {path!r} is not a table of mlproject: its column {field.name!r} is "
                f"{types.get(field.name, 'missing')}. Name another lake: -P lake=FOLDER"
            )
