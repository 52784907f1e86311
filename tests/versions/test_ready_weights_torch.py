"""Register from end to end: weights of torch as they are found."""

import argparse

import numpy as np
import pytest

from mlproject.commands import register
from tests.support import registered_weights as ready

pytestmark = pytest.mark.torch


def network(seed):
    """A narrow network that predicts another label for other images."""
    import torch
    import torchvision

    torch.manual_seed(seed)
    made = torchvision.models.mobilenet_v2(num_classes=4, width_mult=0.35)
    for layer in made.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.momentum = 1.0  # else its statistics stay near 0 and 1
    made.train()(torch.randn(64, 3, 32, 32))
    made.classifier[1].weight.data.normal_(std=0.5)
    return made.eval()


def probabilities(made):
    import torch

    @torch.inference_mode()
    def forward(images):
        pixels = torch.from_numpy(np.float32(images)).permute(0, 3, 1, 2)
        return made(pixels).softmax(dim=1).numpy()

    return forward


def lightning(first, second):
    state = {f"model._orig_mod.{name}": value for name, value in first.state_dict().items()}
    beside = {"epoch": 1, "hyper_parameters": argparse.Namespace(lr=0.1)}
    return first, {"state_dict": state, "optimizer_states": [{"state": {}}], **beside}


def averaged(first, second):
    average = {f"module.{name}": value for name, value in second.state_dict().items()}
    return second, {"model": first.state_dict(), "model_ema": average}


def tutorial(first, second):
    return first, {"epoch": 1, "model_state_dict": first.state_dict(), "loss": 0.4}


@pytest.mark.parametrize(
    ("checkpoint", "name", "notes"),
    [(lightning, "last.ckpt", 1), (averaged, "both.pth", 2), (tutorial, "checkpoint.pt", 1)],
)
def test_a_checkpoint_is_registered_and_predicts_what_its_network_did(
    checkpoint, name, notes, store, tmp_path
):
    import torch

    kept, content = checkpoint(network(1), network(2))
    torch.save(content, tmp_path / name)
    made = ready.register("torch", tmp_path / name, tmp_path)
    assert notes == len(made.notes)
    assert notes == 1 or "moving average 'model_ema.module'" in made.notes[0]
    ready.assert_predicts(made, probabilities(kept))


def test_the_command_tells_in_one_line_each_which_weights_and_labels_it_took(
    store, tmp_path, capsys
):
    import torch

    _, content = averaged(network(1), network(2))
    torch.save(content, tmp_path / "both.pth")
    register.run(framework="torch", **ready.options(tmp_path / "both.pth", tmp_path))
    assert [
        "The weights are the moving average 'model_ema.module' of the file, which also has 'model'",
        "Repeated labels have their output index: 'crane (0)', 'crane (2)'",
    ] == capsys.readouterr().out.splitlines()[1:3]


def test_prefixed_safetensors_are_registered_and_predict_what_their_network_did(store, tmp_path):
    from safetensors.torch import save_file

    kept = network(3)
    state = {f"backbone.{name}": value.half() for name, value in kept.state_dict().items()}
    save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    kept.half().float()  # what is left of float16
    made = ready.register("torch", tmp_path / "model.safetensors", tmp_path)
    ready.assert_predicts(made, probabilities(kept))
