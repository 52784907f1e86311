"""The model file on an accelerator that is not there: what it asks `inference` for, and refuses."""

import io

import numpy as np
import onnx
import pandas as pd
import pytest
from onnx import TensorProto, helper
from PIL import Image

from mlproject import inference
from mlproject.integrations.outages import fault_of
from mlproject.versions import engines
from tests.support.device_errors import OUT_OF_MEMORY, exception

CODE = engines.model_code()
CONFIG = {**inference.DEFAULTS, "resize": 8, "crop": 8, "batch_size": 2, "top_k": 1}
CONFIG["device_batch_size"] = 0
IMAGE = io.BytesIO()
Image.new("RGB", (8, 8), "red").save(IMAGE, "PNG")


def version(forward, devices=2, **config):
    """The model as `load_context` leaves it, on accelerators that are made up."""
    made = CODE.MobileNetV2()
    made.config, made.inference = {**CONFIG, **config}, inference
    made.file, made.labels, made.key = "network.onnx", ["a", "b"], (object(), "config")
    made.devices, made.load = lambda _inference: devices, lambda *arguments: forward
    return made


def halves(images):
    return np.full((len(images), 2), 0.5)


def test_on_a_device_batches_are_large_and_all_cores_decode(monkeypatch):
    monkeypatch.setattr(inference, "task_cores", lambda: 6)
    monkeypatch.setattr(inference, "cuda_memory_bytes", lambda index: 0)
    _, batches = version(halves).network()
    assert {"threads": 6, "device_batch": 256} == batches


def test_a_config_may_name_the_batch_of_a_device():
    assert 48 == version(halves, device_batch_size=48).network()[1]["device_batch"]


def test_on_a_cpu_one_thread_decodes_the_batch_of_the_config():
    forward, batches = version(halves, devices=0, device_batch_size=48).network()
    assert (halves, {}) == (forward, batches)


def test_a_version_goes_on_with_fewer_images_after_its_device_had_no_memory():
    tried = []

    def forward(images):
        tried.append(len(images))
        if len(images) > 3:
            raise exception(OUT_OF_MEMORY[2])
        return halves(images)

    images, made = pd.DataFrame({"content": [IMAGE.getvalue()] * 8}), version(forward)
    for _ in range(2):  # the second batch from Spark
        assert ["a"] * 8 == made.predict(None, images)["label"].tolist()
    assert [8, 4, *[2] * 8] == tried


def test_onnx_runtime_without_its_device_is_a_fault_of_the_machine_never_a_slow_cpu(tmp_path):
    images = helper.make_tensor_value_info("images", TensorProto.UINT8, ["N", 8, 8, 3])
    same = helper.make_tensor_value_info("same", TensorProto.UINT8, ["N", 8, 8, 3])
    graph = helper.make_graph(
        [helper.make_node("Identity", ["images"], ["same"])], "g", [images], [same]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, tmp_path / "network.onnx")
    with pytest.raises(RuntimeError, match="cannot use device 0") as raised:
        CODE.load_onnx(inference, tmp_path / "network.onnx", 2, CONFIG, 0)
    assert "device" == fault_of(f"RuntimeError: {raised.value}")
