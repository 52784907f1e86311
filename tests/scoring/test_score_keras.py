"""Real ImageNet weights on real photos, through the table, Spark and the version's own workers."""

import csv

import mlflow
import pytest

from mlproject.ingestion import new_images, source_listing
from mlproject.lake import snapshots
from mlproject.scoring import scorer

pytestmark = [pytest.mark.spark, pytest.mark.keras]


def test_keras_on_imagenet_photos_predicts_the_expected_labels(
    spark, lake, store, shared, tmp_path
):
    from mlproject.versions import reference_images, registration
    from mlproject.weights import weights_files

    labels = (shared / "imagenet-sample" / "labels1000.txt").read_text("utf-8").splitlines()
    (given,) = (shared / "weights" / "keras").glob("*imagenet_ptq.weights.h5")
    file = weights_files.canonical("keras", str(given), tmp_path)
    with mlflow.start_run():
        version = registration.register(
            file.path,
            labels,
            registration.config("keras"),
            name="imagenet",
            tags={},
            images=reference_images.drawn_squares(8, 224),
        ).version
    folder = shared / "imagenet-sample" / "images"
    new_images.ingest_pending(spark, lake, source_listing.listing(str(folder)))
    assert 125 == scorer.score_pending(spark, lake, version).images
    paths = snapshots.required(lake, "images").read(spark).select("image_id", "path")
    rows = snapshots.required(lake, "predictions").read(spark).join(paths, "image_id").collect()
    answers = {row.path.rsplit("/", 1)[1]: row.label for row in rows}
    with (shared / "imagenet-sample" / "expected_keras_top1.csv").open(encoding="utf-8") as lines:
        expected = {row["file"]: int(row["keras_top1"]) for row in csv.DictReader(lines)}
    right = sum(answers[name] == labels[index] for name, index in expected.items())
    assert 125 == right
