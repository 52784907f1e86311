"""Torch versions: weights, registration, and the same predictions wherever they run."""

import mlflow
import numpy as np
import pytest
from PIL import Image

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
