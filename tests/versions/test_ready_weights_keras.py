"""Register from end to end: weights of Keras as they are found."""

import numpy as np
import pytest

from tests.support import registered_weights as ready

pytestmark = pytest.mark.keras


@pytest.fixture(scope="module")
def model():
    """A narrow network with another head, as for transfer learning."""
    import keras

    keras.utils.set_random_seed(1)
    options = {"alpha": 0.35, "input_shape": (32, 32, 3), "pooling": "avg"}
    base = keras.applications.MobileNetV2(weights=None, include_top=False, **options)
    norms = [layer for layer in base.layers if isinstance(layer, keras.layers.BatchNormalization)]
    for norm in norms:
        norm.momentum = 0.0  # else its statistics stay near 0 and 1
    base(np.random.default_rng(0).normal(size=(64, 32, 32, 3)).astype("f4"), training=True)
    normal = keras.initializers.RandomNormal(stddev=0.5)
    head = keras.layers.Dense(4, activation="softmax", kernel_initializer=normal)
    return keras.Sequential([keras.Input((32, 32, 3)), base, keras.layers.Dropout(0.2), head])


@pytest.mark.parametrize("name", ["whole.keras", "whole.h5", "own.weights.h5", "exported"])
def test_a_model_of_transfer_learning_is_registered_and_predicts_what_it_did(
    name, model, store, tmp_path
):
    if name == "exported":
        model.export(tmp_path / name, verbose=False)
    else:
        (model.save_weights if "weights" in name else model.save)(tmp_path / name)
    made = ready.register("keras", tmp_path / name, tmp_path)
    ready.assert_predicts(made, lambda images: np.asarray(model(np.float32(images))))
