"""The architecture that arrays are of."""

import pytest

from mlproject.weights import architectures
from tests.conftest import THOROUGH

KNOWN = {
    "small": {"conv.weight": (8, 3, 3, 3), "fc.weight": (10, 8), "fc.bias": (10,)},
    "large": {"conv.weight": (16, 3, 3, 3), "norm.weight": (16,), "fc.weight": (10, 16)},
}


@pytest.mark.parametrize(
    ("arrays", "expected"),
    [
        (KNOWN["small"], ("small", "names and shapes", 3)),
        (KNOWN["small"] | {"fc.bias": (5,)}, ("small", "names and shapes", 2)),
        ({name: (7, *shape) for name, shape in KNOWN["large"].items()}, ("large", "names", 3)),
        (
            {f"a{n}": shape for n, shape in enumerate(KNOWN["large"].values())},
            ("large", "shapes", 3),
        ),
        ({"a": (8, 3, 3, 3), "b": (1,), "c": (2,)}, None),
        ({}, None),
    ],
)
def test_the_nearest_has_half_of_the_arrays_by_names_and_shapes_or_by_one_of_them(arrays, expected):
    found = architectures.nearest({"": {"epoch": (1,)}, "model": arrays}, KNOWN)
    assert expected == (found and (found.name, found.compared, found.arrays))
    assert not found or found.prefix == "model"


@pytest.mark.torch
def test_each_model_of_torchvision_is_nearest_to_itself_with_another_head():
    known = architectures._torchvision()
    assert {"resnet50", "vit_b_16", "regnet_y_128gf", "inception_v3"} < set(known)
    assert 80 == len(known)
    for name in known if THOROUGH else ("resnet50", "vit_b_16", "regnet_y_400mf"):
        other = {
            key: (5, *shape[1:]) if shape[0] == 1000 else shape
            for key, shape in known[name].items()
        }
        assert name == architectures.nearest({"": other}, known).name


@pytest.mark.keras
@pytest.mark.parametrize(
    "name",
    [
        *("DenseNet121", "MobileNetV2", "ResNet50"),
        *(
            pytest.param(name, marks=pytest.mark.thorough)
            for name in sorted(architectures.KERAS_PARAMETERS)
        ),
    ],
)
def test_the_parameters_of_models_of_keras_are_as_written(name):
    shapes = architectures.keras_shapes(name)
    expected = architectures.KERAS_PARAMETERS[name]
    assert expected == architectures._kernel_parameters(shapes)


@pytest.mark.keras
def test_all_models_of_keras_are_known():
    import keras

    models = {name for name in dir(keras.applications) if name[0].isupper()}
    assert models == set(architectures.KERAS_PARAMETERS)
