"""Weights files and folders of Keras 2 and 3."""

import zipfile

import numpy as np
import pytest

from mlproject.errors import UserError
from mlproject.weights import weights_files

pytestmark = pytest.mark.keras

SIDE = 32  # pixels
SUFFIXES = [".weights.h5", ".keras", ".h5", "_exported", "_saved"]


def filled(model):
    """The model, with other values in each array."""
    dice = np.random.default_rng(0)
    for variable in model.variables:
        if variable.dtype in ("float32", "float16", "bfloat16"):
            variable.assign(dice.random(variable.shape))
    return model


def network(classes=4, **options):
    import keras

    made = keras.applications.MobileNetV2(
        weights=None, classes=classes, alpha=0.35, input_shape=(SIDE, SIDE, 3), **options
    )
    return filled(made)


def base(**options):
    return network(include_top=False, pooling="avg", **options)


def nested():
    """As for transfer learning: a network in another, with drawn flips and another head."""
    import keras

    inside = base()
    inside.trainable = False
    layers = [keras.Input((SIDE, SIDE, 3)), keras.layers.RandomFlip(), inside]
    head = keras.layers.Dense(4, activation="softmax", name="flowers")
    model = keras.Sequential([*layers, keras.layers.Dropout(0.2), head])
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(np.zeros((2, SIDE, SIDE, 3)), np.zeros(2), verbose=0)  # the file has an optimizer
    return filled(model)


def flat():
    """The layers of a network with another head, in one model."""
    import keras

    inside = base()
    head = keras.layers.Dense(4, activation="softmax")(keras.layers.Dropout(0.2)(inside.output))
    return filled(keras.Model(inside.input, head))


def own_class():
    """A model of a class."""
    import keras

    @keras.saving.register_keras_serializable()
    class Classifier(keras.Model):
        def __init__(self):
            super().__init__()
            self.inside, self.head = base(), keras.layers.Dense(4, activation="softmax")

        def call(self, images):
            return self.head(self.inside(images))

    model = Classifier()
    model(np.zeros((1, SIDE, SIDE, 3)))
    return filled(model)


def saved(model, path):
    """The model in the format that the end of a path names."""
    import tensorflow as tf

    if path.name.endswith("_exported"):
        model.export(path, verbose=False)
    elif path.name.endswith("_saved"):
        tf.saved_model.save(model, path)
    else:
        (model.save_weights if path.name.endswith(".weights.h5") else model.save)(path)
    return path


def converted(folder, path):
    return weights_files.canonical("keras", str(path), folder / "canonical")


def weights_of(model):
    """The arrays of a model, each with its layer's own name."""
    found = {}
    for layer in model.layers:
        if hasattr(layer, "layers"):
            found |= weights_of(layer)
        elif layer.weights:
            dense = layer.weights[0].ndim == 2
            for variable in layer.weights:
                if variable.dtype in ("float32", "float16", "bfloat16"):
                    owner = "head" if dense else layer.name
                    found[f"{owner}/{variable.name}"] = np.asarray(variable, "f4")
    return found


def assert_same(file, model):
    """The canonical file has the arrays of a model."""
    import keras

    made = keras.applications.MobileNetV2(weights=None, classes=file.classes, alpha=file.width)
    made.load_weights(file.path)
    expected, found = weights_of(model), weights_of(made)
    assert set(expected) == set(found)
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_each_format_of_weights_becomes_the_same_canonical_file(suffix, tmp_path):
    model = network(classes=7)
    file = converted(tmp_path, saved(model, tmp_path / f"own{suffix}"))
    assert (7, 0.35, "") == (file.classes, file.width, file.note)
    assert weights_files.read(file.path) == file
    assert_same(file, model)


@pytest.mark.parametrize(
    ("make", "suffix"),
    [
        (nested, ".weights.h5"),
        (nested, ".h5"),
        (nested, "_exported"),
        (flat, ".keras"),
        (flat, "_saved"),
        (own_class, ".weights.h5"),
    ],
)
def test_a_network_in_a_model_of_transfer_learning_is_read_with_its_head(make, suffix, tmp_path):
    model = make()
    assert_same(converted(tmp_path, saved(model, tmp_path / f"own{suffix}")), model)


@pytest.mark.parametrize(
    ("dtype", "suffix"),
    [("float16", ".weights.h5"), ("bfloat16", ".weights.h5"), ("bfloat16", "_saved")],
)
def test_weights_of_another_float_type_are_read(dtype, suffix, tmp_path):
    import keras

    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(dtype)
    try:
        model = network()
    finally:
        keras.config.set_dtype_policy(before)
    assert_same(converted(tmp_path, saved(model, tmp_path / f"half{suffix}")), model)


def test_a_file_of_keras_2_is_read(tmp_path):
    """Its names end in :0, and kernels of depthwise convolutions have a name of their own."""
    import h5py

    model = network()
    with h5py.File(tmp_path / "old.hdf5", "w") as file:
        for layer in model.layers:
            for variable in layer.weights:
                depthwise = "depthwise_" if type(layer).__name__ == "DepthwiseConv2D" else ""
                own = variable.name.replace("kernel", f"{depthwise}kernel")
                name = f"model_weights/mobilenetv2/{layer.name}/{own}:0"
                file[name] = np.asarray(variable)
    assert_same(converted(tmp_path, tmp_path / "old.hdf5"), model)


def test_a_saved_model_of_keras_2_is_read_without_its_optimizer(tmp_path):
    """Its variables lie under numbers of layers, and are named as the layers."""
    import tensorflow as tf

    model, module = network(), tf.Module()
    layers = [layer for layer in model.layers if layer.weights]
    for number, layer in enumerate(layers):
        node = tf.Module()
        for variable in layer.weights:
            tracked = tf.Variable(np.asarray(variable), name=f"{layer.name}/{variable.name}")
            setattr(node, variable.name, tracked)
        setattr(module, f"layer_with_weights-{number}", node)
    module.optimizer = tf.Module()
    module.optimizer.slot = tf.Variable(np.ones((1280, 4), "f4"), name="predictions/kernel")
    tf.saved_model.save(module, str(tmp_path / "old"))
    assert_same(converted(tmp_path, tmp_path / "old"), model)


def test_the_configuration_and_the_graph_of_a_file_are_not_read(tmp_path):
    model = network()
    with zipfile.ZipFile(saved(model, tmp_path / "own.keras")) as archive:
        arrays = archive.read("model.weights.h5")
    with zipfile.ZipFile(tmp_path / "own.keras", "w") as archive:
        archive.writestr("config.json", "junk")
        archive.writestr("model.weights.h5", arrays)
    assert_same(converted(tmp_path, tmp_path / "own.keras"), model)
    (saved(model, tmp_path / "own_saved") / "saved_model.pb").write_bytes(b"junk")
    assert_same(converted(tmp_path, tmp_path / "own_saved"), model)


def headless():
    return base()


def two_dense_layers():
    import keras

    layers = [keras.layers.Dense(9), keras.layers.Dense(4)]
    return keras.Sequential([keras.Input((SIDE, SIDE, 3)), base(), *layers])


def normalised_features():
    import keras

    layers = [keras.layers.BatchNormalization(), keras.layers.Dense(4)]
    return keras.Sequential([keras.Input((SIDE, SIDE, 3)), base(), *layers])


def two_networks():
    import keras

    images = keras.Input((SIDE, SIDE, 3))
    both = keras.layers.Concatenate()([base(name="a")(images), base(name="b")(images)])
    return keras.Model(images, keras.layers.Dense(4)(both))


def resnet():
    import keras

    return keras.applications.ResNet50(weights=None, classes=4)


def dense():
    import keras

    return keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])


@pytest.mark.parametrize(
    ("make", "suffix", "expected"),
    [
        (headless, ".h5", r"missing 'predictions/kernel', 'predictions/bias'; MobileNetV2 fits"),
        (headless, ".keras", r"missing 'dense/vars/0', 'dense/vars/1'; MobileNetV2 fits best: 260"),
        (two_dense_layers, ".keras", r"unexpected 'dense_1/vars/0', 'dense_1/vars/1'; Mobile"),
        (normalised_features, ".keras", r"unexpected '\S*batch_normalization/vars/0', .* 1 more;"),
        (normalised_features, "_saved", r"unexpected 'batch_normalization\S*/gamma', .* 1 more"),
        (two_networks, ".keras", r"unexpected 'layers/functional_1/layers/batch"),
        (two_networks, "_saved", r"unexpected '\S+ \(again\)', "),
        (
            resnet,
            ".weights.h5",
            r"missing 'depth.* and \d+ more; unexpected '.*; ResNet50 fits best",
        ),
        (dense, ".weights.h5", r"missing 'conv2d/vars/0', 'batch_\S* 'batch_\S* and 257 more\.$"),
    ],
)
def test_arrays_that_do_not_fit_are_named_in_one_line(make, suffix, expected, tmp_path):
    path = saved(make(), tmp_path / f"other{suffix}")
    with pytest.raises(UserError, match=expected) as refused:
        converted(tmp_path, path)
    assert "\n" not in str(refused.value)
    assert [] == list((tmp_path / "canonical").glob("*"))


def test_damaged_files_and_folders_are_refused_and_nothing_is_written(tmp_path):
    for name in ("junk.weights.h5", "junk.h5", "junk.keras", "weights.txt"):
        (tmp_path / name).write_bytes(b"junk")
    for name in ("empty", "saved"):
        (tmp_path / name).mkdir()
    (tmp_path / "saved" / "saved_model.pb").write_bytes(b"junk")
    with zipfile.ZipFile(tmp_path / "empty.keras", "w"):
        pass
    names = [path.name for path in tmp_path.iterdir()]
    assert 7 == len(names)
    for name in (*names, "absent.h5"):
        with pytest.raises(UserError) as refused:
            converted(tmp_path, tmp_path / name)
        assert "\n" not in str(refused.value)
    assert [] == list((tmp_path / "canonical").glob("*"))


def test_arrays_in_other_files_are_not_read(tmp_path):
    import h5py

    (tmp_path / "secret").write_bytes(bytes(400))
    with h5py.File(tmp_path / "linked.h5", "w") as file:
        outside = [(str(tmp_path / "secret"), 0, 400)]
        file.create_dataset("dense/kernel", (10, 10), "f4", external=outside)
    with pytest.raises(UserError, match="refer to other files: 'dense/kernel'"):
        converted(tmp_path, tmp_path / "linked.h5")
