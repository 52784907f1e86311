import numpy as np
import pytest

from tests.support import training_checks as checks

pytestmark = [pytest.mark.keras, pytest.mark.spark]


class TestKerasTraining(checks.TrainingTests):
    framework = "keras"
    real_weights = "mobilenet_v2_1.0_224_imagenet_ptq.weights.h5"
    flowers_accuracy = 0.8

    def answers(self, result, contents):
        import keras

        side = result.config["crop"]
        network = keras.applications.MobileNetV2(
            weights=None,
            classes=len(result.labels),
            alpha=result.config["width"],
            input_shape=(side, side, 3),
        )
        network.load_weights(result.weights)
        return np.asarray(network(checks.inputs(contents, result.config), training=False))

    def arrays(self, path):
        import keras

        network = keras.applications.MobileNetV2(weights=None, classes=4, input_shape=(64, 64, 3))
        network.load_weights(path)
        return {weight.path: weight.numpy() for weight in network.weights}

    def is_late(self, name):
        return name.startswith(("block_15", "block_16", "Conv_1", "predictions"))

    def is_statistic(self, name):
        return "moving_" in name
