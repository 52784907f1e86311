"""Keras versions: weights, registration, and the same predictions wherever they run."""

import csv

import mlflow
import numpy as np
import pytest

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
