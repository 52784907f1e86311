"""The tests that both frameworks' versions must pass."""

import math
from pathlib import Path

import mlflow
import numpy as np
import pytest

import mlproject
from mlproject.errors import MachineError, RefusedError, UserError
from mlproject.versions import engines, reference_images, registration, version_files
from mlproject.versions.engines import NATIVE, ONNXRUNTIME
from mlproject.weights import weights_files
from tests.conftest import SHARED, photo
from tests.support import predicting
from tests.support.lakes import add_image, day, frame
from tests.support.old_versions import register_oldest


def copy_with_other_code(uri, folder):
    """The version in a folder of its own, where an image without bytes has another error code."""
    copied = Path(mlflow.artifacts.download_artifacts(uri, dst_path=str(folder)))
    [errors] = copied.rglob("inference/errors.py")
    errors.write_text(errors.read_text().replace('EMPTY = "empty"', 'EMPTY = "nothing_there"'))
    return str(copied)


def registry():
    """The names of registered models and the ids of logged ones in the store."""
    client = mlflow.MlflowClient()
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    names = {model.name for model in client.search_registered_models()}
    return names, {model.model_id for model in client.search_logged_models(experiments)}


class EngineTests:
    """The tests of the versions of one framework and engine, which inherits them in its module."""

    framework: str
    engine = ONNXRUNTIME
    requirements: tuple[str, ...] = ("onnxruntime",)
    real_weights: str

    @staticmethod
    def small(folder, name="", classes=4, bias=None):
        """The path of narrow weights in a new file; without `bias`, labels differ."""
        raise NotImplementedError

    @staticmethod
    def without_export(network):
        """A network around another, with an operator that ONNX does not have."""
        raise NotImplementedError

    def registered(self, path, labels, name="photos", **config):
        config = registration.config(self.framework, engine=self.engine, **config)
        images = reference_images.drawn_squares(8, config["crop"])
        given = {"name": name, "tags": {"of": "tests"}, "images": images}
        with mlflow.start_run():
            return registration.register(path, labels, config, **given).version

    @pytest.fixture(scope="class")
    def version(self, store):
        """A registered version: of the real weights where they are, else of small ones."""
        if not SHARED.is_dir():
            path = self.small(store)
            return self.registered(path, ["a", "b", "c", "d"], image_size=96, width=0.35)
        labels = (SHARED / "imagenet-sample" / "labels1000.txt").read_text().splitlines()
        given = str(SHARED / "weights" / self.framework / self.real_weights)
        file = weights_files.canonical(self.framework, given, store / "weights")
        assert (file.classes, file.width) == (1000, 1.0)
        return self.registered(file.path, labels)

    @pytest.fixture(scope="class")
    def expected(self, version):
        """The predictions of the version in this process."""
        return mlflow.pyfunc.load_model(version.uri).predict(predicting.frame(predicting.images()))

    def test_a_version_has_its_source_signature_and_requirements(self, version):
        found = mlflow.MlflowClient().get_model_version("photos", str(version.version))
        assert version.uri == f"models:/photos/{version.version}"
        expected = {"framework": self.framework, "engine": self.engine, "of": "tests"}
        assert expected == {name: found.tags[name] for name in expected}
        assert found.source == f"models:/{version.model_id}"
        info = mlflow.models.get_model_info(version.uri)
        assert info.signature == registration.signature()
        needed = mlflow.pyfunc.get_model_dependencies(version.uri)
        with open(needed) as file:  # noqa: PTH123 - MLflow gives a string
            lines = file.read().split()
        assert {line.partition("==")[0] for line in lines} == {
            *("mlflow", "numpy", "pandas", "pillow"),
            *self.requirements,
        }
        assert all("==" in line and "+" not in line for line in lines)

    def test_a_version_predicts_where_our_package_cannot_be_imported(
        self, version, expected, tmp_path
    ):
        predictions = predicting.through_isolated_process(
            version.uri, predicting.images(), tmp_path
        )
        assert predicting.unlike(predictions, expected) == []

    def test_a_version_predicts_the_same_over_rest(self, version, expected, tmp_path):
        predictions = predicting.through_rest(version.uri, predicting.images(), tmp_path)
        assert predicting.unlike(predictions, expected) == []

    @pytest.mark.spark
    def test_a_version_predicts_the_same_in_spark_and_is_loaded_once_per_worker(
        self, version, expected, spark
    ):
        predictions, loads = predicting.through_spark(spark, version.uri, predicting.images())
        assert predicting.unlike(predictions, expected) == []
        assert 1 <= sum(loads.values()) < 6, loads
        assert set(loads.values()) <= {0, 1}, loads

    def test_a_version_is_loaded_once_in_a_process(self, version):
        models = [mlflow.pyfunc.load_model(version.uri).unwrap_python_model() for _ in range(3)]
        assert len({id(model.inference) for model in models}) == 1
        [device] = {key[2] for key in models[0].inference.loads() if key[:2] == models[0].key}
        assert models[0].inference.loads().count((*models[0].key, device)) == 1


class NativeTests(EngineTests):
    """The tests of the versions that a framework itself runs."""

    engine = NATIVE

    @pytest.mark.spark
    def test_a_version_of_the_oldest_layout_is_scored_as_it_is_by_its_framework(
        self, version, spark, lake, tmp_path
    ):
        old = register_oldest(version, tmp_path / "version")
        config = mlflow.models.get_model_info(old.uri).flavors["python_function"]["config"]
        assert not {"engine", "device_batch_size"} & set(config)
        assert not list(Path(mlflow.artifacts.download_artifacts(old.uri)).rglob("*.onnx"))
        contents = [photo((90 * n % 256, 40 * n % 256, 9), n) for n in range(5)]
        for number, content in enumerate(contents):
            add_image(lake, f"/{number}.jpg", content, day(1))
        result = mlproject.score(old.uri, lake=lake).result
        assert (5, 0) == (result.images, result.errors)
        paths = frame(lake, "images")[["image_id", "path"]]
        rows = frame(lake, "predictions").merge(paths, on="image_id")
        rows = rows.sort_values("path").fillna({"error": ""})
        expected = mlflow.pyfunc.load_model(version.uri).predict(predicting.frame(contents))
        assert predicting.unlike(rows, expected) == []
        assert {old.model_id} == set(rows.model_id)


class VersionTests(EngineTests):
    """The tests of the versions of one framework, whatever their engine."""

    @pytest.fixture(scope="class")
    def small_weights(self, tmp_path_factory):
        return self.small(tmp_path_factory.mktemp("small"))

    def test_versions_with_different_code_do_not_share_it(self, version, tmp_path):
        first = mlflow.pyfunc.load_model(version.uri)
        other = mlflow.pyfunc.load_model(copy_with_other_code(version.uri, tmp_path))
        again = mlflow.pyfunc.load_model(version.uri)
        nothing = predicting.frame([b""])
        errors = [model.predict(nothing)["error"].tolist() for model in (first, other, again)]
        assert errors == [["empty"], ["nothing_there"], ["empty"]]

    def test_each_row_has_a_prediction_for_any_index_and_type_of_bytes(self, version):
        model = mlflow.pyfunc.load_model(version.uri)
        photo = predicting.images()[0]
        rows = predicting.frame([photo, None, bytearray(photo), memoryview(photo), b"no image"])
        rows.index = [7, 7, 7, 7, 7]
        predictions = model.unwrap_python_model().predict(None, rows)
        assert predictions["error"].tolist() == ["", "empty", "", "", "unsupported_format"]
        assert predictions["label"].nunique() == 2
        none = [math.isnan(score) for score in predictions["score"]]
        assert none == [False, True, False, False, True]

    def test_the_batch_of_an_accelerator_can_be_chosen_where_a_version_is_loaded(self, version):
        model = mlflow.pyfunc.load_model(version.uri, model_config={"device_batch_size": 3})
        assert 3 == model.unwrap_python_model().config["device_batch_size"]

    def test_no_rows_give_no_rows_of_the_same_types(self, version):
        model = mlflow.pyfunc.load_model(version.uri).unwrap_python_model()
        some = model.predict(None, predicting.frame([predicting.images()[0]]))
        none = model.predict(None, predicting.frame([]))
        assert (len(none), none.dtypes.to_dict()) == (0, some.dtypes.to_dict())

    def test_weights_that_give_nan_are_refused_and_not_registered(self, store, tmp_path):
        path = self.small(tmp_path, bias=np.full(4, np.nan, np.float32))
        before = registry()
        with pytest.raises(RefusedError, match="not_finite"):
            self.registered(path, ["a", "b", "c", "d"], name="broken", image_size=96, width=0.35)
        assert registry() == before

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
    def test_weights_labels_and_names_that_do_not_fit_are_refused_before_anything_is_logged(
        self, labels, name, width, store, small_weights
    ):
        before = registry()
        with pytest.raises(UserError):
            self.registered(small_weights, labels, name=name, image_size=96, width=width)
        assert registry() == before

    def test_what_was_measured_stands_in_metrics_and_tags(self, version):
        client = mlflow.MlflowClient()
        tags = client.get_model_version(version.name, str(version.version)).tags
        logged = client.get_logged_model(version.model_id)
        measured = {metric.key: metric.value for metric in logged.metrics}
        # Small weights may give the same bits in both engines, as on some processors.
        assert 0 < measured["parity_max_difference"] or not SHARED.is_dir()
        assert 0 <= measured["parity_max_difference"] < 1e-5
        assert float(tags["parity_max_difference"]) == pytest.approx(
            measured["parity_max_difference"], rel=0.01
        )
        assert ("1", 1.0) == (tags["parity_top1_agreement"], measured["parity_top1_agreement"])
        run = client.get_run(logged.source_run_id).data.metrics
        assert measured == {name: run[name] for name in measured}

    def test_onnx_runtime_gives_the_same_bits_at_each_batch_size(self, version):
        model = mlflow.pyfunc.load_model(version.uri).unwrap_python_model()
        forward, _ = model.network()
        images = reference_images.drawn_squares(40, model.config["crop"])
        one = np.concatenate([forward(image[None]) for image in images])
        for size in (8, 32, 40):
            parts = [forward(images[start : start + size]) for start in range(0, 40, size)]
            np.testing.assert_array_equal(np.concatenate(parts), one)

    def test_without_parity_a_native_version_is_registered_and_says_why(
        self, small_weights, tmp_path, monkeypatch
    ):
        monkeypatch.setattr(engines, "MAX_DIFFERENCE", -1)
        made = self.registered(small_weights, ["a", "b", "c", "d"], image_size=96, width=0.35)
        tags = mlflow.MlflowClient().get_model_version(made.name, str(made.version)).tags
        assert (NATIVE, "1") == (tags["engine"], tags["parity_top1_agreement"])
        assert f"differs from {self.framework}" in tags["engine_reason"]
        version_files.download(made, tmp_path)
        model = mlflow.models.Model.load(str(tmp_path))
        config = model.flavors["python_function"]["config"]
        assert (NATIVE, 32) == (config["engine"], config["batch_size"])
        assert not list(tmp_path.rglob("network.onnx"))

    def test_what_cannot_be_exported_is_native_and_says_why(
        self, small_weights, tmp_path, monkeypatch
    ):
        code, name = engines.model_code(), f"{self.framework}_network"
        monkeypatch.setattr(engines, "model_code", lambda: code)
        made = getattr(code, name)
        monkeypatch.setattr(code, name, lambda *given: self.without_export(made(*given)))
        found = self.chosen(small_weights, tmp_path)
        assert (NATIVE, None) == (found.name, found.parity)
        assert "cannot be exported" in found.reason

    def test_a_full_disk_makes_no_version_native(self, small_weights, tmp_path):
        (tmp_path / "network.onnx").mkdir()  # nothing can be written there
        with pytest.raises(MachineError, match="not exported to ONNX, as the machine failed"):
            self.chosen(small_weights, tmp_path)

    def chosen(self, path, folder):
        config = registration.config(self.framework, image_size=96, width=0.35)
        return engines.choose(path, 4, config, reference_images.drawn_squares(2, 96), folder)
