"""Torch versions: weights, registration, and the same predictions wherever they run."""

from pathlib import Path

import mlflow
import numpy as np
import pytest
from PIL import Image

from mlproject.errors import UserError
from mlproject.versions import weights
from tests.support import predicting
from tests.support import version_checks as checks

pytestmark = pytest.mark.torch


def small(folder, name="small.safetensors", classes=4, bias=None):
    """Weights of a narrow network."""
    import torch
    import torchvision
    from safetensors.torch import save_file

    torch.manual_seed(1)
    network = torchvision.models.mobilenet_v2(num_classes=classes, width_mult=0.35)
    bias = torch.linspace(1, 0, classes) if bias is None else torch.from_numpy(bias)
    network.classifier[1].bias.data = bias
    state = {key: value.contiguous() for key, value in network.state_dict().items()}
    (save_file if name.endswith(".safetensors") else torch.save)(state, folder / name)
    return folder / name


def without_export(network):
    """What it computes depends on a value, not only on a shape."""
    import torch

    class Choosing(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.network = network

        def forward(self, images):
            return self.network(images if images.sum().item() > 0 else -images)

    return Choosing()


class TestTorchVersions(checks.VersionTests):
    framework = "torch"
    real_weights = "mobilenet_v2_imagenet_ptq_torchvision_names.pth"
    small = staticmethod(small)
    without_export = staticmethod(without_export)

    def test_photos_have_the_labels_of_torchvision(self, version, shared):
        import torch
        import torchvision

        network = torchvision.models.mobilenet_v2(num_classes=1000).eval()
        network.load_state_dict(
            torch.load(shared / "weights" / "torch" / self.real_weights, weights_only=True)
        )
        transform = torchvision.transforms.Compose(
            [
                torchvision.transforms.Resize(256),
                torchvision.transforms.CenterCrop(224),
                torchvision.transforms.ToTensor(),
                torchvision.transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
            ]
        )
        labels = (shared / "imagenet-sample" / "labels1000.txt").read_text().splitlines()
        paths = predicting.photos()[::5]
        squares = torch.stack([transform(Image.open(path).convert("RGB")) for path in paths])
        with torch.inference_mode():
            expected = torch.softmax(network(squares), dim=1).max(dim=1)
        found = mlflow.pyfunc.load_model(version.uri).predict(
            predicting.frame([path.read_bytes() for path in paths])
        )
        assert found["label"].tolist() == [labels[index] for index in expected.indices]
        # One level of 255 in a few pixels: Pillow rounds once more when it resizes before it crops.
        np.testing.assert_allclose(found["score"], expected.values.numpy(), atol=0.02)


class TestNativeTorchVersions(checks.NativeTests):
    framework = "torch"
    requirements = ("torch", "torchvision", "safetensors")
    real_weights = TestTorchVersions.real_weights
    small = staticmethod(small)


@pytest.mark.parametrize("name", ["own.safetensors", "state.pth", "state.pt"])
def test_each_format_of_weights_becomes_the_same_canonical_file(name, tmp_path):
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


def test_pickled_code_is_refused_and_not_executed(tmp_path):
    import torch

    class Code:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "ran",))

    torch.save({"state_dict": Code()}, tmp_path / "code.pt")
    with pytest.raises(UserError, match="never executed"):
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
