"""Trains torchvision's MobileNetV2: a head on frozen features, the last blocks, or all of it.

Never import this in a process that imports TensorFlow: see docs/decisions/0002.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import nn

from mlproject.training import learning
from mlproject.training.learning import Examples, Floats, Ints, OnEpoch, Settings
from mlproject.versions.weights import WeightsFile

FEATURE_BLOCKS = 17  # inverted residuals of torchvision's `features`: its members 1..17


def train(
    examples: Examples,
    start: WeightsFile | None,
    settings: Settings,
    *,
    config: dict[str, Any],
    path: Path,
    on_epoch: OnEpoch,
) -> Floats:
    """Probabilities (held-out images, K classes) of the trained network, which is saved.

    Args:
        examples: Images, their classes, and which are held out.
        start: Weights to start from, with a new head; None = random weights.
        settings: Numbers of the training.
        config: Preprocessing of the version: `mean`, `std`, `width`.
        path: The `.safetensors` file to write, under torchvision's names.
        on_epoch: Called with the scores after each epoch.
    """
    torch.manual_seed(settings.seed)
    network = _Network(start.classes if start else len(examples.labels), config)
    if start is None:
        network.fit(examples, settings, network.module, (0, settings.epochs), on_epoch)
    else:
        network.module.load_state_dict(load_file(start.path))
        network.fit_head(examples, settings, on_epoch)
        if settings.fine_tune_blocks:
            # The last convolution stands behind the blocks and goes with them.
            last = network.module.features[FEATURE_BLOCKS + 1 - settings.fine_tune_blocks :]
            epochs = (settings.epochs, settings.epochs + settings.fine_tune_epochs)
            network.fit(examples, settings, last, epochs, on_epoch)
    network.save(path)
    return network.probabilities(examples, examples.held_out)


class _Network:
    """MobileNetV2 on the device it is trained on, fed with uint8 images (N, H, W, 3)."""

    def __init__(self, classes: int, config: dict[str, Any]) -> None:
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.mean = torch.tensor(config["mean"], device=self.device).view(1, 3, 1, 1)
        self.std = torch.tensor(config["std"], device=self.device).view(1, 3, 1, 1)
        module = torchvision.models.mobilenet_v2(num_classes=classes, width_mult=config["width"])
        # channels_last: a third faster in training on CPUs, and what cuDNN wants
        self.module = module.to(self.device, memory_format=torch.channels_last)

    def inputs(self, pixels: NDArray[np.uint8]) -> torch.Tensor:
        """What the network sees: (N, 3, H, W) float32, normalised as in serving."""
        images = torch.from_numpy(np.ascontiguousarray(pixels)).to(self.device)
        images = images.permute(0, 3, 1, 2)  # (N, H, W, C) -> (N, C, H, W), still channels last
        return (images.float() / 255.0 - self.mean) / self.std

    @torch.inference_mode()
    def probabilities(self, examples: Examples, rows: Ints) -> Floats:
        """(rows, K) in inference mode."""
        self.module.eval()
        parts = [
            self.module(self.inputs(examples.pixels[part])).softmax(dim=1).cpu().numpy()
            for part in learning.batches_in_order(rows)
        ]
        return np.concatenate(parts)

    @torch.inference_mode()
    def features(self, examples: Examples) -> Floats:
        """(N, 1280) of all images: what the head sees, averaged over height and width."""
        self.module.eval()
        parts = [
            self.module.features(self.inputs(examples.pixels[part])).mean(dim=(2, 3)).cpu().numpy()
            for part in learning.batches_in_order(np.arange(len(examples.targets)))
        ]
        return np.concatenate(parts)

    def fit_head(self, examples: Examples, settings: Settings, on_epoch: OnEpoch) -> None:
        """Gives the network a new head, trained on features that are computed once."""
        kernel, bias = learning.fit_head(self.features(examples), examples, settings, on_epoch)
        features, classes = kernel.shape
        head = nn.Linear(features, classes, device=self.device)
        with torch.no_grad():
            head.weight.copy_(torch.from_numpy(kernel.T))  # (F, K) -> (K, F)
            head.bias.copy_(torch.from_numpy(bias))
        self.module.classifier[1] = head

    def fit(
        self,
        examples: Examples,
        settings: Settings,
        part: nn.Module,
        epochs: tuple[int, int],
        on_epoch: OnEpoch,
    ) -> None:
        """Trains a part of the network, with flips; all of it is trained with batch norm alive.

        Args:
            examples: Images and classes.
            settings: Numbers of the training.
            part: What is trained beside the head; batch norm outside training all stays frozen.
            epochs: Epochs done before and epochs done after.
            on_epoch: Called with the scores after each epoch.
        """
        whole = part is self.module
        peak = settings.learning_rate if whole else learning.FINE_TUNE_RATE
        self.module.requires_grad_(False)
        part.requires_grad_(True)
        self.module.classifier.requires_grad_(True)
        wanted = [weight for weight in self.module.parameters() if weight.requires_grad]
        optimizer = torch.optim.Adam(wanted, lr=peak)
        rng = np.random.default_rng(settings.seed)
        plan = learning.plan(examples.training, epochs, settings.batch_size, peak, rng)
        for epoch, steps in plan:
            self.module.train(whole)
            tally = learning.Tally()
            for rows, step_size in steps:
                for group in optimizer.param_groups:
                    group["lr"] = step_size
                pixels = learning.flipped(examples.pixels[rows], rng)
                targets = torch.from_numpy(examples.targets[rows]).to(self.device)
                logits = self.module(self.inputs(pixels))
                loss = nn.functional.cross_entropy(logits, targets)
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call] # torch leaves it untyped
                optimizer.step()
                right = (logits.argmax(dim=1) == targets).sum()
                tally.add(float(loss.detach()), int(right), len(rows))
            if whole:
                self.recalibrate(examples, last=epoch == epochs[1])
            held_out = self.probabilities(examples, examples.held_out)
            on_epoch(epoch, tally.scores(), learning.scores(held_out, examples.held_out_targets))
        self.module.requires_grad_(False)

    @torch.no_grad()
    def recalibrate(self, examples: Examples, *, last: bool) -> None:
        """Recomputes batch-norm statistics as averages over batches of these images.

        Running averages lag behind weights that change fast, and inference fails with them.
        Source: arXiv 2105.07576, section 3 (PreciseBN).
        """
        norms = [layer for layer in self.module.modules() if isinstance(layer, nn.BatchNorm2d)]
        momentum = norms[0].momentum
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # None = average over all batches
        self.module.train()
        for part in learning.sample(examples.training, last=last):
            self.module.features(self.inputs(examples.pixels[part]))
        for norm in norms:
            norm.momentum = momentum

    def save(self, path: Path) -> None:
        """Writes all arrays under torchvision's names; the file executes no code."""
        state = self.module.state_dict()
        save_file({name: value.cpu().contiguous() for name, value in state.items()}, path)
