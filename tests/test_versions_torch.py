"""Torch versions: weights, registration, and the same answers wherever they run."""

import math
from pathlib import Path

import mlflow
import numpy as np
import pytest
import version_checks as checks
from PIL import Image

from mlproject import versions, weights
from mlproject.errors import RefusedError, UserError

pytestmark = pytest.mark.torch

REAL_WEIGHTS = "weights/torch/mobilenet_v2_imagenet_ptq_torchvision_names.pth"


def small(folder, name="small.safetensors", classes=4, change=lambda network: None):
    """Weights of a narrow network, with a head that tells images apart."""
    import torch
    import torchvision
    from safetensors.torch import save_file

    torch.manual_seed(1)
    network = torchvision.models.mobilenet_v2(num_classes=classes, width_mult=0.35)
    network.classifier[1].bias.data = torch.linspace(1, 0, classes)
    change(network)
    state = {key: value.contiguous() for key, value in network.state_dict().items()}
    (save_file if name.endswith(".safetensors") else torch.save)(state, folder / name)
    return folder / name


def registered(path, labels, name="photos", **config):
    with mlflow.start_run():
        return versions.register(
            path, labels, versions.config("torch", **config), name=name, tags={"of": "tests"}
        )


@pytest.fixture(scope="module")
def version(store):
    """A registered version: of the real weights where they are, else of small ones."""
    if not checks.SHARED.is_dir():
        path = small(store)
        return registered(path, ["a", "b", "c", "d"], image_size=96, width=0.35)
    file = weights.torch_file(str(checks.SHARED / REAL_WEIGHTS), store / "weights")
    labels = (checks.SHARED / "imagenet-sample" / "labels1000.txt").read_text().splitlines()
    assert (file.classes, file.width) == (1000, 1.0)
    return registered(file.path, labels)


@pytest.fixture(scope="module")
def small_weights(tmp_path_factory):
    return small(tmp_path_factory.mktemp("small"))


@pytest.fixture(scope="module")
def expected(version):
    """What the version answers in this process."""
    return mlflow.pyfunc.load_model(version.uri).predict(checks.frame(checks.images()))


def test_photos_have_the_labels_of_torchvision_done_by_hand(version, shared):
    import torch
    import torchvision

    network = torchvision.models.mobilenet_v2(num_classes=1000).eval()
    network.load_state_dict(torch.load(shared / REAL_WEIGHTS, weights_only=True))
    transform = torchvision.transforms.Compose(
        [
            torchvision.transforms.Resize(256),
            torchvision.transforms.CenterCrop(224),
            torchvision.transforms.ToTensor(),
            torchvision.transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
        ]
    )
    labels = (shared / "imagenet-sample" / "labels1000.txt").read_text().splitlines()
    paths = checks.photos()[::5]
    squares = torch.stack([transform(Image.open(path).convert("RGB")) for path in paths])
    with torch.inference_mode():
        by_hand = torch.softmax(network(squares), dim=1).max(dim=1)
    answers = mlflow.pyfunc.load_model(version.uri).predict(
        checks.frame([path.read_bytes() for path in paths])
    )
    assert answers["label"].tolist() == [labels[index] for index in by_hand.indices]
    # One level of 255 in a few pixels: Pillow rounds once more when it resizes before it crops.
    np.testing.assert_allclose(answers["score"], by_hand.values.numpy(), atol=0.02)


def test_a_version_says_where_it_came_from_and_what_it_needs(version):
    found = mlflow.MlflowClient().get_model_version("photos", str(version.version))
    assert version.uri == f"models:/photos/{version.version}"
    assert (found.source, found.tags["framework"], found.tags["of"]) == (
        f"models:/{version.model_id}",
        "torch",
        "tests",
    )
    info = mlflow.models.get_model_info(version.uri)
    assert info.signature == versions.signature()
    needed = mlflow.pyfunc.get_model_dependencies(version.uri)
    with open(needed) as file:  # noqa: PTH123 - MLflow gives a string
        lines = file.read().split()
    assert {line.partition("==")[0] for line in lines} == {
        *("mlflow", "numpy", "pandas", "pillow", "torch", "torchvision", "safetensors")
    }
    assert all("==" in line and "+" not in line for line in lines)


def test_a_version_answers_where_our_package_cannot_be_imported(version, expected, tmp_path):
    answers = checks.through_isolated_process(version.uri, checks.images(), tmp_path)
    assert checks.unlike(answers, expected) == []


def test_a_version_answers_the_same_over_rest(version, expected, tmp_path):
    answers = checks.through_rest(version.uri, checks.images(), tmp_path)
    assert checks.unlike(answers, expected) == []


@pytest.mark.spark
def test_a_version_answers_the_same_in_spark_and_is_loaded_once_a_worker(version, expected, spark):
    answers, counts = checks.through_spark(spark, version.uri, checks.images())
    assert checks.unlike(answers, expected) == []
    assert counts == [(counts[0][0], 1)] * 3


def test_a_version_is_loaded_once_in_a_process(version):
    models = [mlflow.pyfunc.load_model(version.uri).unwrap_python_model() for _ in range(3)]
    assert len({id(model.onboard) for model in models}) == 1
    [device] = {key[2] for key in models[0].onboard.loads() if key[:2] == models[0].key}
    assert models[0].onboard.loads().count((*models[0].key, device)) == 1


def test_versions_with_different_code_do_not_share_it(version, tmp_path):
    first = mlflow.pyfunc.load_model(version.uri)
    other = mlflow.pyfunc.load_model(checks.copy_with_other_code(version.uri, tmp_path))
    again = mlflow.pyfunc.load_model(version.uri)
    nothing = checks.frame([b""])
    errors = [model.predict(nothing)["error"].tolist() for model in (first, other, again)]
    assert errors == [["empty"], ["nothing_there"], ["empty"]]


def test_each_row_has_an_answer_whatever_the_index_and_the_kind_of_bytes(version):
    model = mlflow.pyfunc.load_model(version.uri)
    photo = checks.images()[0]
    rows = checks.frame([photo, None, bytearray(photo), memoryview(photo), b"no image"])
    rows.index = [7, 7, 7, 7, 7]
    answers = model.unwrap_python_model().predict(None, rows)
    assert answers["error"].tolist() == ["", "empty", "", "", "unsupported_format"]
    assert answers["label"].nunique() == 2
    assert [math.isnan(score) for score in answers["score"]] == [False, True, False, False, True]


def test_no_rows_give_no_rows_of_the_same_types(version):
    model = mlflow.pyfunc.load_model(version.uri).unwrap_python_model()
    some = model.predict(None, checks.frame([checks.images()[0]]))
    none = model.predict(None, checks.frame([]))
    assert (len(none), none.dtypes.to_dict()) == (0, some.dtypes.to_dict())


def test_weights_that_give_no_numbers_are_refused_and_not_registered(store, tmp_path):
    def break_head(network):
        network.classifier[1].bias.data.fill_(np.nan)

    path = small(tmp_path, change=break_head)
    before = checks.registry()
    with pytest.raises(RefusedError, match="not_finite"):
        registered(path, ["a", "b", "c", "d"], name="broken", image_size=96, width=0.35)
    assert checks.registry() == before


@pytest.mark.parametrize(
    ("labels", "name", "width"),
    [
        (["a", "b", "c"], "fine", 0.35),
        (["a", "b", "c", "c"], "fine", 0.35),
        (["a", "b", "c", ""], "fine", 0.35),
        (["a", "b", "c", "d\ne"], "fine", 0.35),
        (["a", "b", "c", "d"], "fine", 1.0),
        (["a", "b", "c", "d"], "a/b", 0.35),
        (["a", "b", "c", "d"], "", 0.35),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_logged(
    labels, name, width, store, small_weights
):
    before = checks.registry()
    with pytest.raises(UserError):
        registered(small_weights, labels, name=name, image_size=96, width=width)
    assert checks.registry() == before


@pytest.mark.parametrize("name", ["own.safetensors", "state.pth", "state.pt"])
def test_each_kind_of_weights_file_becomes_the_same_canonical_one(name, tmp_path):
    from safetensors.torch import load_file

    path = small(tmp_path, name, classes=7)
    file = weights.torch_file(str(path), tmp_path / "canonical")
    assert (file.classes, file.width) == (7, 0.35)
    assert weights.read(file.path) == file
    bias = load_file(file.path)["classifier.1.bias"]
    np.testing.assert_allclose(bias, np.linspace(1, 0, 7))


def test_a_wrapped_state_dict_of_several_devices_is_unwrapped(tmp_path):
    import torch

    plain = torch.load(small(tmp_path, "plain.pt"), weights_only=True)
    wrapped = {"epoch": 3, "state_dict": {f"module.{key}": plain[key].half() for key in plain}}
    torch.save(wrapped, tmp_path / "wrapped.pt")
    file = weights.torch_file(str(tmp_path / "wrapped.pt"), tmp_path / "canonical")
    assert (file.classes, file.width) == (4, 0.35)


def test_pickled_code_is_refused_and_not_run(tmp_path):
    import torch

    class Code:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "ran",))

    torch.save({"state_dict": Code()}, tmp_path / "code.pt")
    with pytest.raises(UserError, match="never run"):
        weights.torch_file(str(tmp_path / "code.pt"), tmp_path / "canonical")
    assert not (tmp_path / "ran").exists()


def test_weights_of_something_else_are_refused(tmp_path):
    import torch
    import torchvision

    torch.save(torch.nn.Linear(2, 2).state_dict(), tmp_path / "linear.pt")
    torch.save(torchvision.models.resnet18().state_dict(), tmp_path / "resnet.pt")
    torch.save(torch.zeros(3), tmp_path / "tensor.pt")
    renamed = torch.load(small(tmp_path, "renamed.pt"), weights_only=True)
    renamed["features.0.0.kernel"] = renamed.pop("features.0.0.weight")
    torch.save(renamed, tmp_path / "renamed.pt")
    for name in ("junk.pth", "junk.safetensors"):
        (tmp_path / name).write_bytes(b"junk")
    names = ("linear.pt", "resnet.pt", "tensor.pt", "renamed.pt", "junk.pth", "junk.safetensors")
    for name in (*names, "absent.pth", "weights.txt"):
        with pytest.raises(UserError):
            weights.torch_file(str(tmp_path / name), tmp_path / "canonical")
    assert not (tmp_path / "canonical").exists()
