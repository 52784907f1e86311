"""What the model file asks frameworks for with a GPU and without: stand-ins record the calls."""

import contextlib
import sys
from types import SimpleNamespace
from unittest.mock import MagicMock

import numpy as np
import pytest

from mlproject import inference
from mlproject.versions import engines

CODE = engines.model_code()
CONFIG = {"crop": 8, "width": 1.0, "mean": [0.5] * 3, "std": [0.5] * 3, "device_batch_size": 0}
IMAGES = np.zeros((2, 8, 8, 3), np.uint8)


@pytest.fixture
def stand_in(monkeypatch):
    """Puts a module that records all calls in the place of each framework that is named."""

    def replace(*names):
        made = [MagicMock(name=name) for name in names]
        for name, module in zip(names, made, strict=True):
            monkeypatch.setitem(sys.modules, name, module)
        return made

    return replace


class Contexts:
    """Makes the contexts of a framework, and knows which of them is entered, and with what."""

    def __init__(self):
        self.entered = []

    @contextlib.contextmanager
    def __call__(self, *values, **named):
        self.entered.append((*values, named) if named else values)
        yield
        self.entered.pop()

    def seen_by(self, function):
        """What is entered while a stand-in is called, one list for each call."""
        seen = []

        def call(*_values, **_named):
            seen.append(list(self.entered))
            return function.return_value

        function.side_effect = call
        return seen


class Task:
    """A Spark task with these addresses of GPUs."""

    def __init__(self, *addresses):
        self.addresses = addresses

    def resources(self):
        return {"gpu": SimpleNamespace(addresses=self.addresses)} if self.addresses else {}

    def partitionId(self):  # noqa: N802 - Spark's name
        return 0

    def cpus(self):
        return 1


def loaded(monkeypatch, framework, task):
    """The network of a version in a Spark task, on a machine whose driver has four GPUs."""
    context = SimpleNamespace(TaskContext=SimpleNamespace(get=lambda: task))
    monkeypatch.setitem(sys.modules, "pyspark", context)
    monkeypatch.setattr(inference, "cuda_devices", lambda: 4)
    monkeypatch.setattr(inference, "cuda_memory_bytes", lambda index: 0)
    made = CODE.MobileNetV2()
    made.config, made.inference = CONFIG, inference
    made.file, made.labels, made.key = "network", ["a", "b"], (object(), "config")
    made.devices, made.load = CODE.LOADERS[framework]
    return made.network()[0]


@pytest.fixture
def onnxruntime(stand_in):
    [module] = stand_in("onnxruntime")
    module.InferenceSession.return_value.get_inputs.return_value = [MagicMock()]
    module.InferenceSession.return_value.get_providers.return_value = ["CUDA", "CPU"]
    return module


def test_onnx_runtime_computes_on_the_gpu_with_the_address_of_the_task(monkeypatch, onnxruntime):
    onnxruntime.get_available_providers.return_value = ["CUDAExecutionProvider"]
    loaded(monkeypatch, "onnxruntime", Task("3"))
    [call] = onnxruntime.InferenceSession.call_args_list
    (name, options), cpu = call.kwargs["providers"]
    assert ("CUDAExecutionProvider", "CPUExecutionProvider") == (name, cpu)
    assert {
        "device_id": 3,
        "cudnn_conv_algo_search": "HEURISTIC",
        "arena_extend_strategy": "kSameAsRequested",
        "use_tf32": "0",
    } == options
    assert call.kwargs["enable_fallback"] is False
    onnxruntime.preload_dlls.assert_called_once_with()


def test_onnx_runtime_without_its_cuda_provider_computes_on_cpus(monkeypatch, onnxruntime):
    onnxruntime.get_available_providers.return_value = ["CPUExecutionProvider"]
    loaded(monkeypatch, "onnxruntime", Task("3"))
    [call] = onnxruntime.InferenceSession.call_args_list
    assert ["CPUExecutionProvider"] == call.kwargs["providers"]
    onnxruntime.preload_dlls.assert_not_called()


@pytest.mark.parametrize(
    ("devices", "device", "precisions"),
    [
        (4, "cuda:3", [("cuda", {"dtype": "float16"})]),
        (0, "cpu", []),
    ],
)
def test_torch_computes_in_float16_on_a_gpu_alone(
    monkeypatch, stand_in, devices, device, precisions
):
    torch, torchvision, _ = stand_in("torch", "torchvision", "safetensors.torch")
    torch.float16, torch.autocast = "float16", Contexts()
    torch.cuda.device_count.return_value = devices
    network = torchvision.models.mobilenet_v2.return_value.eval.return_value
    network.to.return_value = network
    seen = torch.autocast.seen_by(network)
    loaded(monkeypatch, "torch", Task("3"))(IMAGES)
    network.to.assert_called_once_with(device, memory_format=torch.channels_last)
    torch.from_numpy.return_value.to.assert_called_once_with(device)
    assert [device] * 2 == [call.kwargs["device"] for call in torch.tensor.call_args_list]
    assert [precisions] == seen
    # Sums of probabilities in float16 would differ from 1.
    torch.softmax.assert_called_once_with(network.return_value.float.return_value, dim=1)


@pytest.mark.parametrize(("devices", "device"), [(4, "/GPU:3"), (0, "/CPU:0")])
def test_tensorflow_computes_on_the_gpu_of_the_task_without_tf32(
    monkeypatch, stand_in, devices, device
):
    tf, keras = stand_in("tensorflow", "keras")
    tf.function = lambda **_: lambda function: function
    tf.device = Contexts()
    tf.config.list_physical_devices.return_value = ["GPU"] * devices
    made = keras.applications.MobileNetV2
    loads, calls = tf.device.seen_by(made), tf.device.seen_by(made.return_value)
    copies = tf.device.seen_by(tf.constant)
    monkeypatch.setenv("TF_FORCE_GPU_ALLOW_GROWTH", "true")
    monkeypatch.setenv("KERAS_BACKEND", "tensorflow")
    loaded(monkeypatch, "keras", Task("3"))(IMAGES)
    tf.config.list_physical_devices.assert_called_once_with("GPU")
    assert (1, 2, 2) == (len(loads), len(calls), len(copies))  # traced, then computed
    assert [{(device,)}] * 5 == [set(places) for places in (*loads, *calls, *copies)]
    exact = tf.config.experimental.enable_tensor_float_32_execution.mock_calls
    assert [(False,)] * bool(devices) == [call.args for call in exact]


@pytest.mark.parametrize(("given", "expected"), [(None, "true"), ("false", "false")])
def test_tensorflow_is_imported_with_memory_growth_unless_the_user_says_otherwise(
    monkeypatch, tmp_path, given, expected
):
    for name in ("TF_FORCE_GPU_ALLOW_GROWTH", "KERAS_BACKEND"):  # which the model file sets
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    if given:
        monkeypatch.setenv("TF_FORCE_GPU_ALLOW_GROWTH", given)
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    monkeypatch.delitem(sys.modules, "tensorflow")
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "tensorflow.py").write_text(
        "import os\nfrom types import SimpleNamespace\n\n"
        "AT_IMPORT = {**os.environ}\n"
        "config = SimpleNamespace(list_physical_devices=lambda kind: [kind] * 2)\n"
    )
    assert 2 == CODE.keras_devices(inference)
    at_import = sys.modules["tensorflow"].AT_IMPORT
    assert (expected, "tensorflow") == (
        at_import["TF_FORCE_GPU_ALLOW_GROWTH"],
        at_import["KERAS_BACKEND"],
    )
