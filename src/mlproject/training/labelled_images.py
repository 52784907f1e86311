"""Training examples from the `images` table: the images, their labels and the decoded pixels."""

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from mlproject import inference
from mlproject.errors import UserError
from mlproject.images import image_files, splits
from mlproject.images.image_bytes import image_contents
from mlproject.integrations.framework_process import OnProgress
from mlproject.integrations.spark_session import from_arrow
from mlproject.training.learning import Examples

DECODED_ROWS = 64  # images that a task holds decoded at once
REPORTED = 1000  # images between two reports of progress
INGEST = "mlflow run . -e ingest -P source=FOLDER"


def labelled(images: DataFrame) -> tuple[dict[str, str], int]:
    """The label, by image_id, of every image without error that has one.

    The driver receives only ids and labels: the rows are those of `labels.with_newest`.

    Returns:
        The labels, and the number of images left out because files with the same bytes have two.

    Raises:
        UserError: There is no labelled image, only one label, or one image of a label.
    """
    usable = images.where("label is not null and label != '' and error is null")
    at_a_time = usable.groupBy("image_id", "labelled_at").agg(F.collect_set("label").alias("all"))
    # An image that was moved to another folder has its newest label.
    rows = at_a_time.groupBy("image_id").agg(F.max_by("all", "labelled_at")).collect()
    labels = {image_id: found[0] for image_id, found in rows if len(found) == 1}
    require_classes(labels.values())
    return labels, len(rows) - len(labels)


def require_classes(labels: Iterable[str]) -> None:
    """Raises UserError when images with these labels are too few for training and evaluation."""
    counts = Counter(sorted(labels))
    if not counts:
        raise UserError(
            "There is no labelled image without an error (the label is the name of the folder). "
            f"Put the photos of each label in one folder and run: {INGEST}"
        )
    if len(counts) == 1:
        raise UserError(
            f"All images have the label {next(iter(counts))!r}, and training needs two labels. "
            f"Add a folder with other photos and run: {INGEST}"
        )
    single = next((label for label, count in counts.items() if count < 2), None)
    if single is not None:
        raise UserError(
            f"Label {single!r} has one image without an error, and needs two: one for training, "
            f"one for evaluation. Add photos to that folder and run: {INGEST}"
        )


def load(
    images: DataFrame,
    labels: Mapping[str, str],
    config: Mapping[str, Any],
    folder: Path,
    on_images: OnProgress = lambda done, total: None,
) -> Examples:
    """The images with a label in `labels`, by image_id, decoded in Spark tasks as in scoring.

    The driver receives no encoded bytes and writes decoded ones directly to a file in `folder`,
    which has image_size x image_size x 3 bytes for each image and must outlive the result.
    `on_images` is called with the number of decoded images, and of all, at intervals.

    Raises:
        UserError: Too few images can be decoded.
    """
    ids = sorted(labels)
    row_of = {image_id: row for row, image_id in enumerate(ids)}
    side = config["crop"]
    folder.mkdir(parents=True, exist_ok=True)
    file = _reserved(folder / "pixels", len(ids) * side * side * 3)
    pixels = np.memmap(file, np.uint8, "r+", shape=(len(ids), side, side, 3))
    loaded = np.zeros(len(ids), bool)
    decoded_so_far = 0
    counts = image_files.counts(images.sparkSession)
    chosen_ids = from_arrow(images.sparkSession, pa.table({"image_id": ids}))
    wanted = images.where("error is null").join(F.broadcast(chosen_ids), "image_id", "left_semi")
    squares = (
        image_contents(wanted, images, counts)
        .select("image_id", "content")
        .mapInArrow(_decoding(dict(config)), "image_id string, pixels binary")
    )
    # One partition is read while the next is decoded: memory is bounded by two partitions.
    for image_id, square in squares.toLocalIterator(prefetchPartitions=True):
        row = row_of[image_id]
        if not loaded[row]:
            pixels[row] = np.frombuffer(square, np.uint8).reshape(side, side, 3)
            loaded[row] = True
            decoded_so_far += 1
            if decoded_so_far % REPORTED == 0:
                on_images(decoded_so_far, len(ids))
    rows = np.flatnonzero(loaded)
    decoded = {ids[row]: labels[ids[row]] for row in rows}
    require_classes(decoded.values())
    classes = sorted(set(decoded.values()))
    chosen = splits.held_out(decoded)
    evaluated = np.asarray([ids[row] in chosen for row in rows])
    class_of = {label: number for number, label in enumerate(classes)}
    targets = [class_of.get(labels[image_id], 0) for image_id in ids]
    return Examples(
        pixels_file=file,
        side=side,
        targets=np.asarray(targets, np.int64),
        labels=tuple(classes),
        training=rows[~evaluated],
        held_out=rows[evaluated],
    )


def _reserved(file: Path, size: int) -> Path:
    """A file with reserved disk space: else writing to its memory map can kill the process."""
    try:
        with file.open("wb") as made:
            os.posix_fallocate(made.fileno(), 0, size)
    except OSError as error:
        raise UserError(
            f"The decoded images need {size / 1e9:.1f} GB in {str(file.parent)!r} "
            f"({error.strerror}). Name a larger disk: export TMPDIR=FOLDER"
        ) from error
    return file


def _decoding(
    config: dict[str, Any],
) -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """A function for mapInArrow: (image_id, content) -> (image_id, pixels)."""

    def decoded(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        parts = (
            batch.slice(start, DECODED_ROWS)
            for batch in batches
            for start in range(0, batch.num_rows, DECODED_ROWS)
        )
        for batch in parts:
            ids, squares = [], []
            for image_id, content in zip(batch.column(0), batch.column(1), strict=True):
                square, _ = inference.decode(content.as_py(), config)
                if square is not None:
                    ids.append(image_id.as_py())
                    squares.append(square.tobytes())
            columns = [pa.array(ids, pa.string()), pa.array(squares, pa.binary())]
            yield pa.RecordBatch.from_arrays(columns, names=["image_id", "pixels"])

    return decoded
