"""Keras versions: weights, registration, and the same answers wherever they run."""

import csv
import math
import zipfile

import mlflow
import numpy as np
import pytest
import version_checks as checks

from mlproject import versions, weights
from mlproject.errors import RefusedError, UserError

pytestmark = pytest.mark.keras


def small(folder, name="small.weights.h5", classes=4, change=lambda network: None):
    """Weights of the smallest published width, with a head that tells images apart."""
    import keras

    keras.utils.set_random_seed(1)
    network = keras.applications.MobileNetV2(
        weights=None, classes=classes, alpha=0.35, input_shape=(96, 96, 3)
    )
    network.layers[-1].bias.assign(np.linspace(1, 0, classes))
    change(network)
    (network.save_weights if name.endswith(".weights.h5") else network.save)(folder / name)
    return folder / name


def registered(path, labels, name="photos", **config):
    with mlflow.start_run():
        return versions.register(
            path, labels, versions.config("keras", **config), name=name, tags={"of": "tests"}
        )


@pytest.fixture(scope="module")
def version(store):
    """A registered version: of the real weights where they are, else of small ones."""
    if not checks.SHARED.is_dir():
        path = small(store)
        return registered(path, ["a", "b", "c", "d"], image_size=96, width=0.35)
    [source] = (checks.SHARED / "weights" / "keras").glob("*.weights.h5")
    labels = (checks.SHARED / "imagenet-sample" / "labels1000.txt").read_text().splitlines()
    file = weights.keras_file(str(source), store / "weights")
    assert (file.classes, file.width) == (1000, 1.0)
    return registered(file.path, labels)


@pytest.fixture(scope="module")
def small_weights(tmp_path_factory):
    return small(tmp_path_factory.mktemp("small"))


@pytest.fixture(scope="module")
def expected(version):
    """What the version answers in this process."""
    return mlflow.pyfunc.load_model(version.uri).predict(checks.frame(checks.images()))


def test_imagenet_photos_have_the_expected_first_label(version, shared):
    with (shared / "imagenet-sample" / "expected_keras_top1.csv").open() as file:
        rows = list(csv.DictReader(file))
    labels = (shared / "imagenet-sample" / "labels1000.txt").read_text().splitlines()
    folder = shared / "imagenet-sample" / "images"
    contents = [(folder / row["file"]).read_bytes() for row in rows]
    answers = mlflow.pyfunc.load_model(version.uri).predict(checks.frame(contents))
    same = [
        label == labels[int(row["keras_top1"])]
        for label, row in zip(answers["label"], rows, strict=True)
    ]
    assert (len(same), sum(same) >= 123) == (125, True)


def test_a_version_says_where_it_came_from_and_what_it_needs(version):
    found = mlflow.MlflowClient().get_model_version("photos", str(version.version))
    assert version.uri == f"models:/photos/{version.version}"
    assert (found.source, found.tags["framework"], found.tags["of"]) == (
        f"models:/{version.model_id}",
        "keras",
        "tests",
    )
    info = mlflow.models.get_model_info(version.uri)
    assert info.signature == versions.signature()
    needed = mlflow.pyfunc.get_model_dependencies(version.uri)
    with open(needed) as file:  # noqa: PTH123 - MLflow gives a string
        lines = file.read().split()
    assert {line.partition("==")[0] for line in lines} == {
        *("mlflow", "numpy", "pandas", "pillow", "tensorflow", "keras", "h5py")
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
        network.layers[-1].bias.assign([np.nan] * 4)

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


@pytest.mark.parametrize("name", ["own.weights.h5", "whole.keras", "whole.h5"])
def test_each_kind_of_weights_file_becomes_the_same_canonical_one(name, tmp_path):
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
