"""Trains torchvision's MobileNetV2: a head on frozen features, the last blocks, or all of it.

Never import this in a process that imports TensorFlow: see docs/decisions/0002.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision
from safetensors.torch import load_file, save_file
from torch import nn

from mlproject.training.learning import BLOCKS, Floats, Images, Ints, Step
from mlproject.weights.weights_files import WeightsFile


class Network:
    """As `learning.Network`, on the device it is trained on."""

    def __init__(
        self, classes: int, start: WeightsFile | None, config: dict[str, Any], seed: int
    ) -> None:
        torch.manual_seed(seed)
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.mean = torch.tensor(config["mean"], device=self.device).view(1, 3, 1, 1)
        self.std = torch.tensor(config["std"], device=self.device).view(1, 3, 1, 1)
        module = torchvision.models.mobilenet_v2(
            num_classes=start.classes if start else classes, width_mult=config["width"]
        )
        # channels_last: a third faster in training on CPUs, and what cuDNN wants
        self.module = module.to(self.device, memory_format=torch.channels_last)
        if start:
            self.module.load_state_dict(load_file(start.path))

    def inputs(self, images: Images) -> torch.Tensor:
        """What the network sees: (N, 3, H, W) float32, normalised as in serving."""
        pixels = torch.from_numpy(np.ascontiguousarray(images)).to(self.device)
        pixels = pixels.permute(0, 3, 1, 2)  # (N, H, W, C) -> (N, C, H, W), still channels last
        return (pixels.float() / 255.0 - self.mean) / self.std

    @torch.inference_mode()
    def probabilities(self, images: Images) -> Floats:
        """(N, K) in inference mode."""
        self.module.eval()
        found: Floats = self.module(self.inputs(images)).softmax(dim=1).cpu().numpy()
        return found

    @torch.inference_mode()
    def features(self, images: Images) -> Floats:
        """(N, 1280), averaged over height and width."""
        self.module.eval()
        found: Floats = self.module.features(self.inputs(images)).mean(dim=(2, 3)).cpu().numpy()
        return found

    def set_head(self, kernel: Floats, bias: Floats) -> None:
        """Replaces the head."""
        features, classes = kernel.shape
        head = nn.Linear(features, classes, device=self.device)
        with torch.no_grad():
            head.weight.copy_(torch.from_numpy(kernel.T))  # (F, K) -> (K, F)
            head.bias.copy_(torch.from_numpy(bias))
        self.module.classifier[1] = head

    def training_step(self, blocks: int | None) -> Step:
        """A step of Adam; `features` has the blocks as members 1..17, then a convolution."""
        whole = blocks is None
        part = self.module if blocks is None else self.module.features[BLOCKS + 1 - blocks :]
        self.module.requires_grad_(False)
        part.requires_grad_(True)
        self.module.classifier.requires_grad_(True)
        wanted = [weight for weight in self.module.parameters() if weight.requires_grad]
        optimizer = torch.optim.Adam(wanted)

        def step(images: Images, targets: Ints, learning_rate: float) -> tuple[float, int]:
            self.module.train(whole)
            for group in optimizer.param_groups:
                group["lr"] = learning_rate
            classes = torch.from_numpy(targets).to(self.device)
            logits = self.module(self.inputs(images))
            loss = nn.functional.cross_entropy(logits, classes)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call] # torch leaves it untyped
            optimizer.step()
            return float(loss.detach()), int((logits.argmax(dim=1) == classes).sum())

        return step

    @torch.no_grad()
    def recalibrate(self, images: Images, batches: list[Ints]) -> None:
        """Recomputes batch-norm statistics."""
        norms = [layer for layer in self.module.modules() if isinstance(layer, nn.BatchNorm2d)]
        momentum = norms[0].momentum
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # None = average over all batches
        self.module.train()
        for batch in batches:
            self.module.features(self.inputs(images[batch]))
        for norm in norms:
            norm.momentum = momentum

    def save(self, path: Path) -> None:
        """Writes a `.safetensors` file under torchvision's names; it executes no code."""
        state = self.module.state_dict()
        save_file({name: value.cpu().contiguous() for name, value in state.items()}, path)
