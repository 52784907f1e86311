"""Versions with real small networks and the engine onnxruntime, without torch in this process."""

import random
from pathlib import Path

import mlproject
from mlproject.integrations import framework_process
from mlproject.versions.version import Version
from tests.conftest import photo

COLOURS = {"red": (200, 30, 30), "green": (30, 200, 30), "blue": (30, 30, 200)}
SIDE = 96  # pixels
CERTAIN = 20  # the difference of two logits for a plain colour, about


def many_colours(count: int) -> list[bytes]:
    """Photos, each of another colour."""
    dice = random.Random(0)
    return [
        photo((dice.randrange(256), dice.randrange(256), dice.randrange(256)), n)
        for n in range(count)
    ]


def save_weights(path: str, classes: int) -> None:
    """Narrow random weights; with three classes their head tells `COLOURS` apart."""
    import torch
    import torchvision
    from safetensors.torch import save_file

    torch.manual_seed(0)
    network = torchvision.models.mobilenet_v2(num_classes=classes, width_mult=0.35).eval()
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    levels = (torch.tensor(list(COLOURS.values())) / 255 - mean) / std  # (3, RGB)
    with torch.inference_mode():
        outputs = levels[:, :, None, None].expand(3, 3, SIDE, SIDE)
        for block in network.features:  # without this they are too small for float16
            if not getattr(block, "use_res_connect", False):
                norms = [one for one in block.modules() if hasattr(one, "running_mean")]
                norms[-1].weight.data /= block(outputs).abs().max()
            outputs = block(outputs)
        features = outputs.mean((2, 3))
        centre = features.mean(0)
        arms = features - centre
        length = arms.norm(dim=1).mean()
        if classes == len(COLOURS):  # the nearest of the colours' features is the most likely
            weight = arms * CERTAIN / length.square()
            bias = -weight @ centre - (weight * arms).sum(1) / 2
        else:
            weight = torch.randn(classes, len(centre)) * 3 / length
            bias = -weight @ centre
    head = network.classifier[1]
    head.weight.data, head.bias.data = weight.clone(), bias.clone()
    state = {key: value.contiguous() for key, value in network.state_dict().items()}
    save_file(state, path)


def register_network(folder: Path, name: str, labels: list[str]) -> Version:
    """A version that tells the three labels of `COLOURS` apart, or guesses among other labels.

    Of a version that guesses, int8 predicts another label for some of `many_colours`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    weights, names = folder / "weights.safetensors", folder / "labels.txt"
    names.write_text("\n".join(labels), encoding="utf-8")
    with framework_process.process("torch") as call:
        call(save_weights, str(weights), len(labels))
    made = mlproject.register(
        "torch",
        weights=str(weights),
        labels=str(names),
        name=name,
        image_size=SIDE,
        lake=str(folder / "lake"),
    )
    assert ("onnxruntime", "") == (made.engine, made.engine_reason)
    return made.version
