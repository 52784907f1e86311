"""Trains Keras' MobileNetV2: a head on frozen features, the last blocks, or all of it.

Never import this in a process that imports torch: see docs/decisions/0002.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from mlproject.training import learning
from mlproject.training.learning import Examples, Floats, Ints, OnEpoch, Settings
from mlproject.versions.weights import WeightsFile

BLOCKS = 17  # inverted residuals: layers "block_1_..." to "block_16_...", and "expanded_conv_..."
HEAD = "predictions"  # Source: keras.applications.MobileNetV2
Step = Callable[..., tuple[Any, Any]]


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
        config: Preprocessing of the version: `mean`, `std`, `crop`, `width`.
        path: The `.weights.h5` file to write, for `keras.applications.MobileNetV2`.
        on_epoch: Called with the scores after each epoch.
    """
    keras.utils.set_random_seed(settings.seed)
    # Rewriting the training graph takes 4 s at the first step and makes no step faster.
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
    network = _Network(len(examples.labels), config)
    if start is None:
        layers = network.model.layers
        network.fit(examples, settings, layers, (0, settings.epochs), on_epoch)
    else:
        network.take_backbone(start)
        network.fit_head(examples, settings, on_epoch)
        if settings.fine_tune_blocks:
            layers = network.last_layers(settings.fine_tune_blocks)
            epochs = (settings.epochs, settings.epochs + settings.fine_tune_epochs)
            network.fit(examples, settings, layers, epochs, on_epoch)
    network.model.save_weights(path)
    return network.probabilities(examples, examples.held_out)


class _Network:
    """MobileNetV2 with the head of these classes, fed with uint8 images (N, H, W, 3)."""

    def __init__(self, classes: int, config: dict[str, Any]) -> None:
        self.config = config
        self.model = self._model(classes)
        self.mean, self.std = np.float32(config["mean"]), np.float32(config["std"])
        side = config["crop"]
        self.images = tf.TensorSpec((None, side, side, 3), tf.uint8)
        # A fixed signature with a free batch size is traced once, for batches of every size.
        self.infer = tf.function(
            lambda images: self.model(self.inputs(images), training=False),
            input_signature=[self.images],
            autograph=False,
        )
        # The same with the statistics of the batch, which batch norm records.
        self.observe = tf.function(
            lambda images: self.model(self.inputs(images), training=True),
            input_signature=[self.images],
            autograph=False,
        )

    def _model(self, classes: int) -> Any:
        side = self.config["crop"]
        return keras.applications.MobileNetV2(
            weights=None,
            classes=classes,
            alpha=self.config["width"],
            input_shape=(side, side, 3),
        )

    def inputs(self, images: Any) -> Any:
        """Inputs of the network: (N, H, W, 3) float32, normalised as in scoring."""
        return (tf.cast(images, tf.float32) / 255.0 - self.mean) / self.std

    def probabilities(self, examples: Examples, rows: Ints) -> Floats:
        """(rows, K) in inference mode."""
        parts = [
            self.infer(examples.pixels[part]).numpy() for part in learning.batches_in_order(rows)
        ]
        return np.concatenate(parts)

    def take_backbone(self, start: WeightsFile) -> None:
        """Copies everything but the head from a weights file of any number of classes."""
        other = self._model(start.classes)
        other.load_weights(start.path)
        for mine, theirs in zip(self.model.layers, other.layers, strict=True):
            if mine.name != HEAD:
                mine.set_weights(theirs.get_weights())

    def fit_head(self, examples: Examples, settings: Settings, on_epoch: OnEpoch) -> None:
        """Trains the head; the features before it are computed once."""
        head = self.model.get_layer(HEAD)
        backbone = keras.Model(self.model.inputs, head.input)  # (N, H, W, 3) -> (N, 1280)
        forward = tf.function(
            lambda images: backbone(self.inputs(images), training=False),
            input_signature=[self.images],
            autograph=False,
        )
        rows = np.arange(len(examples.targets))
        features = np.concatenate(
            [forward(examples.pixels[part]).numpy() for part in learning.batches_in_order(rows)]
        )
        head.set_weights(learning.fit_head(features, examples, settings, on_epoch))

    def last_layers(self, blocks: int) -> list[Any]:
        """The layers of the last inverted residuals and what follows them, the head included."""
        names = [layer.name for layer in self.model.layers]
        # The first block has no expansion and another name.
        first = "expanded_conv_depthwise" if blocks >= BLOCKS else f"block_{BLOCKS - blocks}_expand"
        layers: list[Any] = self.model.layers[names.index(first) :]
        return layers

    def fit(
        self,
        examples: Examples,
        settings: Settings,
        layers: list[Any],
        epochs: tuple[int, int],
        on_epoch: OnEpoch,
    ) -> None:
        """Trains some layers on mirrored images; batch norm is trained only with all layers.

        Args:
            examples: Images and classes.
            settings: Numbers of the training.
            layers: Layers that are trained.
            epochs: Finished epochs before, and after.
            on_epoch: Called with the scores after each epoch.
        """
        whole = len(layers) == len(self.model.layers)
        peak = settings.learning_rate if whole else learning.FINE_TUNE_RATE
        norms = [x for x in layers if isinstance(x, keras.layers.BatchNormalization)]
        for norm in norms:
            norm.momentum = 0.0  # its "moving" statistics become those of the last batch
        step = self.step([weight for layer in layers for weight in layer.trainable_weights], whole)
        rng = np.random.default_rng(settings.seed)
        plan = learning.plan(examples.training, epochs, settings.batch_size, peak, rng)
        for epoch, steps in plan:
            tally = learning.Tally()
            for rows, step_size in steps:
                pixels = learning.flipped(examples.pixels[rows], rng)
                loss, right = step(pixels, examples.targets[rows], tf.constant(step_size))
                tally.add(float(loss), int(right), len(rows))
            if whole:
                self.recalibrate(examples, norms, last=epoch == epochs[1])
            held_out = self.probabilities(examples, examples.held_out)
            on_epoch(epoch, tally.scores(), learning.scores(held_out, examples.held_out_targets))

    def step(self, weights: list[Any], whole: bool) -> Step:
        """A compiled training step: images, targets, rate -> mean loss, correct predictions."""
        # TensorFlow's fused Adam: that of Keras has ten operations for each weight, and its graph
        # takes 5 s longer to build (on one core).
        values = [weight.value for weight in weights]
        means, squares = ([tf.Variable(tf.zeros_like(v)) for v in values] for _ in range(2))
        beta, gamma, epsilon = learning.ADAM
        steps = tf.Variable(0.0)

        def step(images: Any, targets: Any, step_size: Any) -> tuple[Any, Any]:
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(values)
                found = self.model(self.inputs(images), training=whole)
                losses = keras.losses.sparse_categorical_crossentropy(targets, found)
                loss = tf.reduce_mean(losses)
            gradients = tape.gradient(loss, values)
            done = steps.assign_add(1.0)
            beta_power, gamma_power = beta**done, gamma**done
            slots = zip(values, means, squares, gradients, strict=True)
            for value, mean, square, gradient in slots:
                tf.raw_ops.ResourceApplyAdam(
                    var=value.handle,
                    m=mean.handle,
                    v=square.handle,
                    beta1_power=beta_power,
                    beta2_power=gamma_power,
                    lr=step_size,
                    beta1=beta,
                    beta2=gamma,
                    epsilon=epsilon,
                    grad=gradient,
                )
            right = tf.reduce_sum(tf.cast(tf.argmax(found, axis=1) == targets, tf.int32))
            return loss, right

        signature = [
            self.images,
            tf.TensorSpec((None,), tf.int64),
            tf.TensorSpec((), tf.float32),
        ]
        compiled: Step = tf.function(step, input_signature=signature, autograph=False)
        return compiled

    def recalibrate(self, examples: Examples, norms: list[Any], *, last: bool) -> None:
        """Recomputes batch-norm statistics as averages over batches of these images.

        Keras' running averages (momentum 0.999) need thousands of steps and lag behind weights
        that change fast. Source: arXiv 2105.07576, section 3 (PreciseBN).
        """
        moving = [value for norm in norms for value in (norm.moving_mean, norm.moving_variance)]
        batches = learning.sample(examples.training, last=last)
        sums = [np.zeros(value.shape, np.float64) for value in moving]
        for batch in batches:
            self.observe(examples.pixels[batch])
            sums = [total + value.numpy() for total, value in zip(sums, moving, strict=True)]
        for value, total in zip(moving, sums, strict=True):
            value.assign(total / len(batches))
