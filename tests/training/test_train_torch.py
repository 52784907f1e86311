import numpy as np
import pyarrow as pa
import pytest

from mlproject import inference
from mlproject.errors import UserError
from mlproject.ingestion import labels
from mlproject.lake import snapshots
from mlproject.training import labelled_images
from mlproject.versions import registration
from tests.support import training_checks as checks

pytestmark = [pytest.mark.torch, pytest.mark.spark]


class TestTorchTraining(checks.TrainingTests):
    framework = "torch"
    real_weights = "mobilenet_v2_imagenet_ptq_torchvision_names.pth"
    flowers_accuracy = 0.75

    def answers(self, result, contents):
        import torch
        import torchvision
        from safetensors.torch import load_file

        network = torchvision.models.mobilenet_v2(
            num_classes=len(result.labels), width_mult=result.config["width"]
        )
        network.load_state_dict(load_file(result.weights), strict=True)
        images = torch.from_numpy(checks.inputs(contents, result.config)).permute(0, 3, 1, 2)
        with torch.inference_mode():
            return network.eval()(images).softmax(dim=1).numpy()

    def arrays(self, path):
        from safetensors.numpy import load_file

        return load_file(path)

    def is_late(self, name):
        return name.startswith(("features.16", "features.17", "features.18", "classifier"))

    def is_statistic(self, name):
        return "running_" in name


def test_images_with_two_labels_or_an_error_are_left_out_and_counted(spark, tmp_path):
    folder = checks.draw(tmp_path / "images", images=40)
    (folder / "ocean" / "twice.jpg").write_bytes((folder / "desert/desert_0001.jpg").read_bytes())
    lake = str(tmp_path / "lake")
    checks.fill(spark, lake, folder)
    table = spark.read.format("delta").load(f"{lake}/images")
    newest = labels.with_newest(table.drop("content"), snapshots.rows(spark, lake, "labels"))
    label_of, ambiguous = labelled_images.labelled(newest)
    assert ambiguous == 1
    config = registration.config("torch", image_size=32)
    data = labelled_images.load(table, label_of, config, tmp_path / "scratch")
    image_ids = sorted(label_of)
    assert (
        40 == len(image_ids) == len(data.targets)
    )  # 40 pictures, less the one, and the truncated file
    assert len(data.training) + len(data.held_out) == 39
    assert not set(data.training) & set(data.held_out)
    for row in (*data.training[:5], *data.held_out):
        content = table.where(table.image_id == image_ids[row]).first().content
        square, _ = inference.decode(content, config)
        np.testing.assert_array_equal(square, data.pixels[row])


def test_wrong_settings_and_unlabelled_tables_are_refused_before_training(spark, store, tmp_path):
    lake = str(tmp_path / "lake")
    version = checks.fill(spark, lake, checks.draw(tmp_path / "images", images=4))
    with pytest.raises(UserError, match=r"Label '\w+' has one image"):
        checks.trained(spark, lake, tmp_path, version, "torch", "none")
    with pytest.raises(UserError, match=r"fine_tune_blocks=\d+ is not in 0\.\.17"):
        checks.trained(spark, lake, tmp_path, version, "torch", "none", fine_tune_blocks=18)
    with pytest.raises(UserError, match="no framework 'jax'"):
        checks.trained(spark, lake, tmp_path, version, "jax", "none")


def test_labels_given_later_are_what_is_learnt(spark, tmp_path):
    lake = str(tmp_path / "lake")
    checks.fill(spark, lake, checks.draw(tmp_path / "images", images=16))
    rows = spark.read.format("delta").load(f"{lake}/images").drop("content")
    row = rows.where("label = 'desert' and error is null").orderBy("path").first()
    given = pa.table({"path": [row.path], "label": ["forest"]})
    assert 1 == labels.append_labels(lake, given, "test")
    newest = labels.with_newest(rows, snapshots.rows(spark, lake, "labels"))
    assert "forest" == labelled_images.labelled(newest)[0][row.image_id]
