"""Weights files of torch, as training scripts and hubs write them."""

import argparse
import subprocess
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest

from mlproject.errors import UserError
from mlproject.weights import weights_files

pytestmark = pytest.mark.torch


def network(classes=4, seed=1):
    """A narrow network, none of whose arrays has the values that a new one has."""
    import torch
    import torchvision

    torch.manual_seed(seed)
    made = torchvision.models.mobilenet_v2(num_classes=classes, width_mult=0.35)
    for array in made.state_dict().values():
        array.copy_(torch.rand(array.shape) if array.is_floating_point() else torch.tensor(7))
    return made


def converted(folder, path):
    return weights_files.canonical("torch", str(path), folder / "canonical")


def assert_same(file, state):
    """The canonical file has all arrays of a state dict, and its counters."""
    from safetensors.torch import load_file

    found = load_file(file.path)
    for name, array in state.items():
        assert array.float().equal(found[name].float()), name


@pytest.mark.parametrize(
    "name", ["a.pth", "a.pt", "a.bin", "a.ckpt", "a.pth.tar", "a.safetensors", "old.pth"]
)
def test_each_format_of_weights_becomes_the_same_canonical_file(name, tmp_path):
    import torch
    from safetensors.torch import save_file

    state = network(classes=7).state_dict()
    if name.endswith(".safetensors"):
        prefixed = {f"model.{key}": value for key, value in state.items()}
        save_file(prefixed, tmp_path / name, metadata={"format": "pt"})
    else:
        new = {"_use_new_zipfile_serialization": name != "old.pth"}
        torch.save(state, tmp_path / name, **new)
    file = converted(tmp_path, tmp_path / name)
    assert (7, 0.35, "") == (file.classes, file.width, file.note)
    assert weights_files.read(file.path) == file
    assert_same(file, state)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_weights_of_another_float_type_are_read(dtype, tmp_path):
    import torch

    state = {
        name: array.to(getattr(torch, dtype)) if array.is_floating_point() else array
        for name, array in network().state_dict().items()
    }
    torch.save({"model_state_dict": state}, tmp_path / "half.pt")
    assert_same(converted(tmp_path, tmp_path / "half.pt"), state)


def test_a_state_dict_without_counters_of_batches_is_read(tmp_path):
    import torch

    state = {key: x for key, x in network().state_dict().items() if "num_batches" not in key}
    torch.save(state, tmp_path / "old.pt")
    assert_same(converted(tmp_path, tmp_path / "old.pt"), state)


class SettingsDict(dict):
    """A dict of a training script."""


class Callback:
    """An object of a training script."""

    def __setstate__(self, state):
        raise AssertionError("executed")


def test_a_state_dict_is_read_beside_objects_of_a_training_script_which_are_not_loaded(tmp_path):
    import torch

    trained = network()
    optimizer = torch.optim.Adam(trained.parameters())
    for weight in trained.parameters():
        weight.grad = torch.ones_like(weight)
    optimizer.step()
    checkpoint = {
        "epoch": 3,
        "global_step": 90,
        "state_dict": {f"model._orig_mod.{k}": x for k, x in trained.state_dict().items()},
        "optimizer_states": [optimizer.state_dict()],
        "optimizer": optimizer.state_dict(),
        "args": argparse.Namespace(lr=0.1, out=Path("runs")),
        "best_accuracy": np.float64(0.5),
        "history": defaultdict(list, loss=[0.1]),
        "callbacks": {"early": {"best": torch.tensor(0.2)}},
        "config": SettingsDict(depth=1),
        "callback": Callback(),
    }
    checkpoint["callback"].name = "x"
    torch.save(checkpoint, tmp_path / "last.ckpt")
    assert_same(converted(tmp_path, tmp_path / "last.ckpt"), trained.state_dict())


def test_a_moving_average_of_torch_is_taken_and_told(tmp_path):
    import torch

    trained, average = network(), torch.optim.swa_utils.AveragedModel(network(seed=2))
    both = {"model": trained.state_dict(), "model_ema": average.state_dict()}
    torch.save(both, tmp_path / "both.pth")
    file = converted(tmp_path, tmp_path / "both.pth")
    assert "moving average 'model_ema.module'" in file.note
    assert_same(file, average.module.state_dict())


class Running:
    """Pickled, it is a call."""

    def __init__(self, *call):
        self.call = call

    def __reduce__(self):
        return self.call


def starting_a_process(path):
    return Running(subprocess.check_call, (["touch", str(path)],))


@pytest.mark.parametrize("new_format", [True, False])
@pytest.mark.parametrize("code", [starting_a_process, lambda path: Running(Path.touch, (path,))])
def test_pickled_code_is_not_executed(code, new_format, tmp_path):
    import torch

    content = {"state_dict": code(tmp_path / "ran")}
    torch.save(content, tmp_path / "code.pt", _use_new_zipfile_serialization=new_format)
    with pytest.raises(UserError, match=r"never (executed|loaded).*Save network\.state_dict"):
        converted(tmp_path, tmp_path / "code.pt")
    assert not (tmp_path / "ran").exists()


def test_a_state_dict_beside_pickled_code_is_read_and_the_code_is_not_executed(tmp_path):
    import torch

    state = network().state_dict()
    content = {"hook": starting_a_process(tmp_path / "ran"), "model": state}
    torch.save(content, tmp_path / "code.pt")
    assert_same(converted(tmp_path, tmp_path / "code.pt"), state)
    assert not (tmp_path / "ran").exists()


def write_whole(path):
    import torch

    torch.save(network(), path)


def write_whole_in_a_dict(path):
    import torch

    torch.save({"model": network(), "epoch": 1}, path)


def write_old_whole(path):
    import torch

    torch.save(network(), path, _use_new_zipfile_serialization=False)


def write_torchscript(path):
    import torch

    torch.jit.trace(network().eval(), torch.zeros(1, 3, 32, 32)).save(path)


@pytest.mark.parametrize(
    ("write", "expected"),
    [
        (write_whole, "no state dict, and pickled objects are never loaded"),
        (write_whole_in_a_dict, "no state dict, and pickled objects are never loaded"),
        (write_old_whole, "contains 'torchvision.models.mobilenetv2.MobileNetV2'"),
        (write_torchscript, "a TorchScript archive, whose code is never executed"),
    ],
)
def test_a_whole_module_is_refused_in_one_line_that_says_how_to_save_a_state_dict(
    write, expected, tmp_path
):
    write(tmp_path / "whole.pt")
    with pytest.raises(UserError, match=expected) as refused:
        converted(tmp_path, tmp_path / "whole.pt")
    message = str(refused.value)
    assert message.endswith("Save network.state_dict() with torch.save or safetensors.")
    assert "\n" not in message


def renamed(state):
    return {key.replace("features.0.0.weight", "features.0.0.kernel"): state[key] for key in state}


def without_head(state):
    return {key: state[key] for key in state if "classifier" not in key}


def of_another_library(state):
    return {key.replace("features", "blocks"): state[key] for key in state}


def head_alone(state):
    return {"weight": state["classifier.1.weight"]}


def of_another_width(state):
    return {key: x[..., :-1] if key.endswith("18.0.weight") else x for key, x in state.items()}


def with_a_short_mean(state):
    return state | {"features.0.1.running_mean": state["features.0.1.running_mean"][:3]}


def quantized(state):
    import torch

    return state | {"features.0.0.weight": state["features.0.0.weight"].to(torch.int8)}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (
            renamed,
            "missing 'features.0.0.weight'; unexpected 'features.0.0.kernel'; mobilenet_v2 fits "
            "best: 261 of its 262 arrays have the same names.",
        ),
        (
            without_head,
            "missing 'classifier.1.weight', 'classifier.1.bias'; mobilenet_v2 fits best: 260 of ",
        ),
        (
            of_another_library,
            "missing 'features.0.0.weight', 'features.0.1.weight', 'features.0.1.bias' and 257 "
            "more; unexpected 'blocks.0.0.weight', ",
        ),
        (head_alone, "and 259 more; unexpected 'model.weight'."),  # no architecture fits
        (of_another_width, "no width has the shapes of its 52 convolutions"),
        (quantized, "'features.0.0.weight' has the type torch.int8"),
        (with_a_short_mean, "'features.0.1.running_mean' has the shape (3,), not (16,)"),
    ],
)
def test_keys_that_do_not_fit_are_named_in_one_line(change, expected, tmp_path):
    import torch

    torch.save({"model": change(network().state_dict())}, tmp_path / "odd.pt")
    with pytest.raises(UserError) as refused:
        converted(tmp_path, tmp_path / "odd.pt")
    assert expected in str(refused.value)
    assert "\n" not in str(refused.value)


def test_the_architecture_that_fits_best_is_named_behind_any_prefix(tmp_path):
    import torch
    import torchvision

    state = torchvision.models.resnet18(num_classes=5).state_dict()
    wrapped = {"state_dict": {f"module.{key}": state[key] for key in state}}
    torch.save(wrapped, tmp_path / "resnet.pt")
    with pytest.raises(UserError) as refused:
        converted(tmp_path, tmp_path / "resnet.pt")
    assert (
        "missing 'features.0.0.weight', 'features.0.1.weight', 'features.0.1.bias' and 259 more; "
        "unexpected 'conv1.weight', 'bn1.weight', 'bn1.bias' and 99 more; resnet18 fits best: 100 "
        "of its 102 arrays have the same names and shapes."
    ) in str(refused.value)


def test_damaged_files_are_refused_and_nothing_is_written(tmp_path):
    import torch

    torch.save(torch.zeros(3), tmp_path / "tensor.pt")
    for name in ("junk.pth", "junk.safetensors", "weights.txt"):
        (tmp_path / name).write_bytes(b"junk")
    for name in ("tensor.pt", "junk.pth", "junk.safetensors", "weights.txt", "absent.pth", "."):
        with pytest.raises(UserError):
            converted(tmp_path, tmp_path / name)
    assert [] == list((tmp_path / "canonical").glob("*"))
