"""Real ImageNet weights on real photos, through the table, Spark and the version's own workers."""

import csv

import mlflow
import pytest

from mlproject import ingesting, scoring, sources, tables

pytestmark = [pytest.mark.spark, pytest.mark.keras]


def test_keras_on_imagenet_photos_says_what_was_expected_of_it(
    spark, lake, store, shared, tmp_path
):
    from mlproject import versions, weights

    labels = (shared / "imagenet-sample" / "labels1000.txt").read_text("utf-8").splitlines()
    (given,) = (shared / "weights" / "keras").glob("*imagenet_ptq.weights.h5")
    file = weights.keras_file(str(given), tmp_path)
    with mlflow.start_run():
        version = versions.register(
            file.path, labels, versions.config("keras"), name="imagenet", tags={}
        )
    folder = shared / "imagenet-sample" / "images"
    ingesting.ingest(spark, lake, sources.listing(str(folder)))
    assert 125 == scoring.score(spark, lake, version).images
    paths = tables.read(spark, lake, "images").select("image_id", "path")
    said = tables.read(spark, lake, "predictions").join(paths, "image_id").collect()
    answers = {row.path.rsplit("/", 1)[1]: row.label for row in said}
    with (shared / "imagenet-sample" / "expected_keras_top1.csv").open(encoding="utf-8") as lines:
        expected = {row["file"]: int(row["keras_top1"]) for row in csv.DictReader(lines)}
    right = sum(answers[name] == labels[index] for name, index in expected.items())
    assert 123 <= right
