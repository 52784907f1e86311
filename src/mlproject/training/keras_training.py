"""Trains Keras' MobileNetV2: a head on frozen features, the last blocks, or all of it.

Never import this in a process that imports torch: see docs/decisions/0002.
"""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from mlproject.training.learning import ADAM, BLOCKS, Floats, Images, Ints, Step
from mlproject.weights.weights_files import WeightsFile


class Network:
    """As `learning.Network`."""

    def __init__(
        self, classes: int, start: WeightsFile | None, config: dict[str, Any], seed: int
    ) -> None:
        keras.utils.set_random_seed(seed)
        # Rewriting the training graph takes 4 s at the first step and makes no step faster.
        tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
        shape = (config["crop"], config["crop"], 3)
        options = {"weights": None, "alpha": config["width"], "input_shape": shape}
        self.model = keras.applications.MobileNetV2(classes=classes, **options)
        self.mean, self.std = np.float32(config["mean"]), np.float32(config["std"])
        self.head = self.model.get_layer("predictions")  # Source: keras.applications.MobileNetV2
        self.norms = [
            x for x in self.model.layers if isinstance(x, keras.layers.BatchNormalization)
        ]
        for norm in self.norms:
            norm.momentum = 0.0  # its "moving" statistics become those of the last batch
        self.images = tf.TensorSpec((None, *shape), tf.uint8)
        backbone = keras.Model(self.model.inputs, self.head.input)  # (N, H, W, 3) -> (N, 1280)
        self.infer = self._compiled(self.model, training=False)
        self.observe = self._compiled(self.model, training=True)  # batch norm records statistics
        self.extract = self._compiled(backbone, training=False)
        if start:
            other = keras.applications.MobileNetV2(classes=start.classes, **options)
            other.load_weights(start.path)
            for mine, theirs in zip(self.model.layers, other.layers, strict=True):
                if mine is not self.head:
                    mine.set_weights(theirs.get_weights())

    def _compiled(self, model: Any, *, training: bool) -> Any:
        # A fixed signature with a free batch size is traced once, for batches of every size.
        return tf.function(
            lambda images: model(self.inputs(images), training=training),
            input_signature=[self.images],
            autograph=False,
        )

    def inputs(self, images: Any) -> Any:
        """What the network sees: (N, H, W, 3) float32, normalised as in scoring."""
        return (tf.cast(images, tf.float32) / 255.0 - self.mean) / self.std

    def probabilities(self, images: Images) -> Floats:
        """(N, K) in inference mode."""
        return np.asarray(self.infer(images))

    def features(self, images: Images) -> Floats:
        """(N, 1280) in inference mode."""
        return np.asarray(self.extract(images))

    def set_head(self, kernel: Floats, bias: Floats) -> None:
        """Replaces the head."""
        self.head.set_weights([kernel, bias])

    def training_step(self, blocks: int | None) -> Step:
        """A step of Adam; the layers of a block are named "block_1_..." to "block_16_..."."""
        whole, layers = blocks is None, self.model.layers
        if blocks is not None:
            # The first block has no expansion and another name.
            last = f"block_{BLOCKS - blocks}_expand"
            name = last if blocks < BLOCKS else "expanded_conv_depthwise"
            layers = layers[layers.index(self.model.get_layer(name)) :]
        # TensorFlow's fused Adam: that of Keras has ten operations for each weight, and its graph
        # takes 5 s longer to build (on one core).
        values = [weight.value for layer in layers for weight in layer.trainable_weights]
        means, squares = ([tf.Variable(tf.zeros_like(v)) for v in values] for _ in range(2))
        beta, gamma, epsilon = ADAM
        steps = tf.Variable(0.0)
        signature = [self.images, tf.TensorSpec((None,), tf.int64), tf.TensorSpec((), tf.float32)]

        def update(images: Any, targets: Any, learning_rate: Any) -> tuple[Any, Any]:
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
                    lr=learning_rate,
                    beta1=beta,
                    beta2=gamma,
                    epsilon=epsilon,
                    grad=gradient,
                )
            right = tf.reduce_sum(tf.cast(tf.argmax(found, axis=1) == targets, tf.int32))
            return loss, right

        compiled = tf.function(update, input_signature=signature, autograph=False)

        def step(images: Images, targets: Ints, learning_rate: float) -> tuple[float, int]:
            loss, right = compiled(images, targets, tf.constant(learning_rate))
            return float(loss), int(right)

        return step

    def recalibrate(self, images: Images, batches: list[Ints]) -> None:
        """Recomputes batch-norm statistics; Keras' momentum of 0.999 needs thousands of steps."""
        moving = [value for x in self.norms for value in (x.moving_mean, x.moving_variance)]
        sums = [np.zeros(value.shape, np.float64) for value in moving]
        for batch in batches:
            self.observe(images[batch])
            sums = [total + value.numpy() for total, value in zip(sums, moving, strict=True)]
        for value, total in zip(moving, sums, strict=True):
            value.assign(total / len(batches))

    def save(self, path: Path) -> None:
        """Writes a `.weights.h5` file for `keras.applications.MobileNetV2`."""
        self.model.save_weights(path)
