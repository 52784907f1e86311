"""Keras versions: weights, registration, and the same predictions wherever they run."""

import csv
import zipfile

import mlflow
import numpy as np
import pytest

from mlproject.errors import UserError
from mlproject.versions import weights
from tests.support import predicting
from tests.support import version_checks as checks

pytestmark = pytest.mark.keras


def small(folder, name="small.weights.h5", classes=4, bias=None):
    """Weights of the smallest published width."""
    import keras

    keras.utils.set_random_seed(1)
    network = keras.applications.MobileNetV2(
        weights=None, classes=classes, alpha=0.35, input_shape=(96, 96, 3)
    )
    network.layers[-1].bias.assign(np.linspace(1, 0, classes) if bias is None else bias)
    (network.save_weights if name.endswith(".weights.h5") else network.save)(folder / name)
    return folder / name


def without_export(network):
    """It calls Python."""
    import keras
    import tensorflow

    class Calling(keras.layers.Layer):
        def call(self, images):
            return tensorflow.ensure_shape(
                tensorflow.py_function(lambda given: given, [images], "float32"), images.shape
            )

    images = keras.Input(network.input_shape[1:])
    return keras.Model(images, network(Calling()(images)))


class TestKerasVersions(checks.VersionTests):
    framework = "keras"
    real_weights = "mobilenet_v2_1.0_224_imagenet_ptq.weights.h5"
    small = staticmethod(small)
    without_export = staticmethod(without_export)

    def test_imagenet_photos_have_the_expected_first_label(self, version, shared):
        with (shared / "imagenet-sample" / "expected_keras_top1.csv").open() as file:
            rows = list(csv.DictReader(file))
        labels = (shared / "imagenet-sample" / "labels1000.txt").read_text().splitlines()
        folder = shared / "imagenet-sample" / "images"
        contents = [(folder / row["file"]).read_bytes() for row in rows]
        found = mlflow.pyfunc.load_model(version.uri).predict(predicting.frame(contents))
        same = [
            label == labels[int(row["keras_top1"])]
            for label, row in zip(found["label"], rows, strict=True)
        ]
        assert (len(same), sum(same)) == (125, 125)


class TestNativeKerasVersions(checks.NativeTests):
    framework = "keras"
    requirements = ("tensorflow", "keras", "h5py")
    real_weights = TestKerasVersions.real_weights
    small = staticmethod(small)


@pytest.mark.parametrize("name", ["own.weights.h5", "whole.keras", "whole.h5"])
def test_each_format_of_weights_becomes_the_same_canonical_file(name, tmp_path):
    import keras

    path = small(tmp_path, name, classes=7)
    file = weights.keras_file(str(path), tmp_path / "canonical")
    assert (file.classes, file.width) == (7, 0.35)
    assert weights.read(file.path) == file
    network = keras.applications.MobileNetV2(weights=None, classes=7, alpha=0.35)
    network.load_weights(file.path)
    assert network.layers[-1].bias.numpy().tolist() == np.linspace(1, 0, 7, dtype="f4").tolist()


def test_weights_of_something_else_are_refused(tmp_path):
    import keras

    keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)]).save_weights(
        tmp_path / "dense.weights.h5"
    )
    keras.applications.MobileNetV2(weights=None, include_top=False, alpha=0.35).save_weights(
        tmp_path / "headless.weights.h5"
    )
    (tmp_path / "junk.weights.h5").write_bytes(b"junk")
    (tmp_path / "junk.keras").write_bytes(b"junk")
    (tmp_path / "weights.txt").write_text("1")
    with zipfile.ZipFile(tmp_path / "empty.keras", "w"):
        pass
    for name in ("dense.weights.h5", "headless.weights.h5", "junk.weights.h5", "junk.keras"):
        with pytest.raises(UserError):
            weights.keras_file(str(tmp_path / name), tmp_path / "canonical")
    for name in ("empty.keras", "weights.txt", "absent.h5"):
        with pytest.raises(UserError):
            weights.keras_file(str(tmp_path / name), tmp_path / "canonical")
    assert not list((tmp_path / "canonical").glob("*"))
