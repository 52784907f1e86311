"""Versions in int8 and float16, made from real small networks."""

import json
import sys
from pathlib import Path

import mlflow
import numpy as np
import onnx
import pandas as pd
import pytest
from onnx import numpy_helper

import mlproject
from mlproject.errors import RefusedError, UserError
from mlproject.versions import version_files
from tests.conftest import photo
from tests.support.commands import errors_of_process, run_command
from tests.support.lakes import add_image, day
from tests.support.networks import COLOURS, many_colours, register_network
from tests.support.version_checks import registry
from tests.support.versions import register_colours


@pytest.fixture(scope="module")
def version(store):
    """A version that knows red, green and blue."""
    return register_network(store / "certain", "colours", list(COLOURS))


@pytest.fixture(scope="module")
def guessing(store):
    """A version of random weights: each label is about as likely as the others."""
    return register_network(store / "guessing", "guesses", [f"label {n}" for n in range(200)])


@pytest.fixture(scope="module")
def lake(tmp_path_factory):
    """60 photos of three colours, without labels."""
    folder = str(tmp_path_factory.mktemp("quantization") / "lake")
    for number in range(60):
        name = list(COLOURS)[number % 3]
        add_image(folder, f"/{name}/{number}.jpg", photo(COLOURS[name], number), day(1))
    return folder


@pytest.fixture(scope="module")
def colourful(tmp_path_factory):
    """60 photos of as many colours."""
    folder = str(tmp_path_factory.mktemp("colourful") / "lake")
    for number, content in enumerate(many_colours(60)):
        add_image(folder, f"/{number}.jpg", content, day(1))
    return folder


def contents(version, folder: Path) -> dict[str, bytes]:
    folder.mkdir()
    version_files.download(version, folder)
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for file in folder.rglob("*")
        if file.is_file() and "__pycache__" not in file.parts  # of a version that was loaded there
    }


def last_run():
    [run] = mlflow.search_runs(
        filter_string="tags.`mlproject.verb` = 'quantize'", max_results=1, output_format="list"
    )
    return run


@pytest.mark.parametrize(("precision", "share"), [("int8", 0.4), ("float16", 0.6)])
def test_a_version_of_lower_precision_is_the_same_but_for_its_network(
    version, lake, tmp_path, precision, share
):
    made = mlproject.quantize(version.uri, lake=lake, precision=precision)
    assert not {"torch", "tensorflow"} & set(sys.modules)
    assert (version, "colours") == (made.source, made.version.name)
    before, after = contents(version, tmp_path / "0"), contents(made.version, tmp_path / "1")
    same = {"artifacts/labels.txt", "artifacts/weights.safetensors", "mobilenet_v2.py"}
    same |= {"requirements.txt", *(name for name in before if "artifacts/inference/" in name)}
    assert {name: before[name] for name in before if name in same} == {
        name: after[name] for name in after if name in same
    }
    size = len(after["artifacts/network.onnx"])
    assert size < share * len(before["artifacts/network.onnx"])
    assert (size, 1.0) == (made.measures.quantized.size_bytes, made.measures.top1_agreement)
    photos = pd.DataFrame({"content": [photo(colour, 99) for colour in COLOURS.values()]})
    found = mlflow.pyfunc.load_model(made.version.uri).predict(photos)
    assert list(COLOURS) == list(found["label"])
    expected = mlflow.pyfunc.load_model(version.uri).predict(photos)
    assert np.allclose(expected["score"], found["score"], atol=0.2)


def test_int8_has_a_scale_for_each_output_channel_of_weights_and_one_for_activations(
    version, lake, tmp_path
):
    made = mlproject.quantize(version.uri, lake=lake)
    graph = onnx.load_from_string(
        contents(made.version, tmp_path / "0")["artifacts/network.onnx"]
    ).graph
    values = {one.name: numpy_helper.to_array(one) for one in graph.initializer}
    maker = {output: node for node in graph.node for output in node.output}
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    assert len(convolutions) == 52  # those of MobileNetV2
    for node in convolutions:
        activations, weights = (maker[name] for name in node.input[:2])
        assert ["DequantizeLinear"] * 2 == [activations.op_type, weights.op_type]
        quantized, scales, zeros = (values[name] for name in weights.input)
        assert (np.int8, len(quantized)) == (quantized.dtype, scales.size)
        assert (True, 0) == (scales.size > 1, axis(weights))
        assert not zeros.any()
        _, scale, zero = activations.input
        assert (1, np.uint8) == (values[scale].size, values[zero].dtype)
        assert "QuantizeLinear" == maker[activations.input[0]].op_type


def axis(node):
    return next(one.i for one in node.attribute if one.name == "axis")


def test_tags_and_metrics_say_what_a_version_was_made_from_and_how_close_it_is(version, lake):
    made = mlproject.quantize(version.uri, lake=lake, name="small")
    client = mlflow.MlflowClient()
    tags = client.get_model_version("small", str(made.version.version)).tags
    assert ("int8", version.uri) == (tags["mlproject.precision"], tags["mlproject.derived_from"])
    assert ("onnxruntime", "torch", "1") == (
        tags["engine"],
        tags["framework"],
        tags["top1_agreement"],
    )
    metrics = last_run().data.metrics
    assert metrics == pytest.approx(
        {metric.key: metric.value for metric in logged_metrics(made.version.model_id)}
    )
    assert 60 == metrics["calibration_images"] + metrics["held_out_images"]
    measured = {"top1_agreement", "max_difference", "labelled_images"}
    both = {"ms_per_image", "size_bytes"}
    assert measured | both | {f"{name}_float32" for name in both} < set(metrics)
    assert 0 < metrics["max_difference"] < 0.5
    assert made.version.uri == last_run().data.tags["mlproject.version"]
    config = mlflow.models.get_model_info(made.version.uri).flavors["python_function"]["config"]
    assert ("int8", "onnxruntime", 8) == tuple(
        config[name] for name in ("precision", "engine", "batch_size")
    )


def logged_metrics(model_id):
    return mlflow.get_logged_model(model_id).metrics


def test_with_labels_both_are_measured_on_the_held_out_images_of_training(version, tmp_path):
    lake = str(tmp_path / "lake")
    for number in range(90):
        name = list(COLOURS)[number % 3]
        add_image(lake, f"/{name}/{number}.jpg", photo(COLOURS[name], number), day(1), label=name)
    made = mlproject.quantize(version.uri, lake=lake)
    assert 90 == made.calibration_images + made.measures.images
    assert 8 <= made.measures.images == made.measures.labelled < 30
    assert (1.0, 1.0) == (made.measures.float32.accuracy, made.measures.quantized.accuracy)


def test_a_version_that_agrees_on_too_few_images_is_refused_and_nothing_is_registered(
    guessing, colourful
):
    before = registry()
    with pytest.raises(RefusedError, match=r"below min_agreement=1\. Nothing") as one:
        mlproject.quantize(guessing.uri, lake=colourful, min_agreement=1)
    assert (before, 1) == (registry(), len(str(one.value).splitlines()))
    run = last_run()
    assert "FAILED" == run.info.status
    changed = json.loads(mlflow.artifacts.load_text(f"{run.info.artifact_uri}/changed.json"))
    rows = [dict(zip(changed["columns"], row, strict=True)) for row in changed["data"]]
    different = (1 - run.data.metrics["top1_agreement"]) * run.data.metrics["held_out_images"]
    assert len(rows) == pytest.approx(different)
    assert rows
    assert all(row["before"] != row["after"] and row["path"].endswith(".jpg") for row in rows)


def test_the_command_that_is_refused_prints_one_line_and_ends_with_3(guessing, colourful, tmp_path):
    before, runs = registry(), last_run().info.run_id
    words = ("--model", guessing.uri, "--lake", colourful, "--min_agreement", "1")
    [line] = errors_of_process("quantize", *words, cwd=tmp_path, code=3)
    assert line.startswith(
        f"mlproject quantize: The int8 network predicts the label of {guessing.uri}"
    )
    assert "below min_agreement=1. Nothing was registered. Try -P precision=float16" in line
    assert before == registry()
    assert (True, "FAILED") == (runs != last_run().info.run_id, last_run().info.status)


def test_the_command_prints_both_networks_and_the_changed_images(guessing, colourful):
    options = ("--model", guessing.uri, "--lake", colourful, "--min_agreement", "0")
    printed = run_command("quantize", *options).stdout
    assert "Registered models:/guesses/2: models:/guesses/1 in int8, calibrated on" in printed
    for word in ("float32", "int8", "ms an image", "label before", ".jpg"):
        assert word in printed


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precision": "int4"}, "precisions: 'int8', 'float16'"),
        ({"min_agreement": 1.5}, "min_agreement=1.5 is not between 0 and 1"),
        ({"name": "a/b"}, "Model name 'a/b' is not allowed"),
        ({"lake": "nowhere"}, "has 0 decodable images to measure on"),
    ],
)
def test_what_cannot_be_used_is_refused_in_one_line(version, lake, tmp_path, options, message):
    before = registry()
    if options.get("lake"):
        options = {"lake": str(tmp_path / options["lake"])}
    with pytest.raises(UserError, match=message) as raised:
        mlproject.quantize(version.uri, **{"lake": lake, **options})
    assert (before, 1) == (registry(), len(str(raised.value).splitlines()))


def test_a_version_without_a_float32_network_in_onnx_is_refused_with_what_to_do(version, lake):
    with pytest.raises(UserError, match=r"no network in ONNX.* -e register -P engine=onnxruntime"):
        mlproject.quantize(register_colours("foreign").uri, lake=lake)
    made = mlproject.quantize(version.uri, lake=lake, precision="float16")
    with pytest.raises(UserError, match=f"is float16 already.* -P model={version.uri}"):
        mlproject.quantize(made.version.uri, lake=lake)
    result = run_command("quantize", "--model", made.version.uri, "--lake", lake, code=2)
    assert "already" in result.output
