"""The networks of real weights in int8 and float16, on photos of ImageNet."""

import csv

import mlflow
import pytest

import mlproject
from mlproject.versions import registry
from tests.support import predicting
from tests.support.lakes import add_image, day

# Framework, its weights, and photos of 125 with the same label in int8, at least. Torch pads in
# another way than these weights were trained with: its labels are less certain.
WEIGHTS = [
    ("keras", "mobilenet_v2_1.0_224_imagenet_ptq.weights.h5", 123),
    pytest.param(
        *("torch", "mobilenet_v2_imagenet_ptq_torchvision_names.pth", 119),
        marks=pytest.mark.thorough,
    ),
]


def predicted(version, contents) -> list[str]:
    model = mlflow.pyfunc.load_model(version.uri)
    return list(model.predict(predicting.frame(contents))["label"])


@pytest.mark.slow
@pytest.mark.parametrize(("framework", "weights", "least"), WEIGHTS)
def test_int8_and_float16_agree_with_float32_on_real_photos(
    store, lake, shared, framework, weights, least
):
    folder = shared / "imagenet-sample"
    labels = folder / "labels1000.txt"
    source = mlproject.register(
        framework,
        weights=str(shared / "weights" / framework / weights),
        labels=str(labels),
        name=framework,
        lake=lake,
    ).version
    with (folder / "expected_keras_top1.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    contents = [(folder / "images" / row["file"]).read_bytes() for row in rows]
    # Calibrated and measured on other photos than those that are counted here.
    for number, path in enumerate(sorted((shared / "flowers5").rglob("*.jpg"))):
        add_image(lake, f"/{number}.jpg", path.read_bytes(), day(1))
    expected = predicted(source, contents)
    if framework == "keras":  # torch pads otherwise
        names = labels.read_text(encoding="utf-8").splitlines()
        assert expected == [names[int(row["keras_top1"])] for row in rows]
    assert 125 == len(expected)
    for precision, same, bound in (("int8", least, 0.3), ("float16", 124, 0.05)):
        made = mlproject.quantize(source.uri, lake=lake, precision=precision, min_agreement=0.9)
        found = predicted(made.version, contents)
        assert same <= sum(map(str.__eq__, expected, found)), precision
        assert 0 < made.measures.max_difference < bound
        assert source.uri == registry.source_of(mlflow.MlflowClient(), made.version)
