"""The two nets in Keras, images (m, H, W, C); layers have the names of the weights that are exported.

Keras's defaults differ from torch's: batch norm's momentum 0.99 becomes 1 - 0.1 = 0.9 (Keras weighs the old average,
torch the new statistic), its epsilon 1e-3 becomes 1e-5; its running variance is unbiased in either.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf
from protocol import ProcessWork
from tf_keras import Model, layers, losses


def net_of(work: ProcessWork, shape: tuple[int, ...]) -> Model:
    """With the initial weights.

    Args:
        work: names and weights.
        shape: (H, W, C) of an image.
    """
    weights, images = work.weights(), layers.Input(shape)
    logits = (_cnn if work.net == "cnn" else _unet)(images, weights)
    model = Model(images, logits)
    for layer in model.layers:
        if layer.weights:
            layer.set_weights(_converted(layer.name, weights))
    return model


def loss_of(net: str) -> Callable[[tf.Tensor, tf.Tensor], tf.Tensor]:
    """Targets and logits of m examples -> their losses, (m,)."""
    if net == "cnn":
        return losses.SparseCategoricalCrossentropy(from_logits=True, reduction=losses.Reduction.NONE)
    pixels = losses.BinaryCrossentropy(from_logits=True, reduction=losses.Reduction.NONE)
    return lambda masks, logits: tf.reduce_mean(pixels(masks[..., None], logits), axis=(1, 2))


def _converted(name: str, weights: dict[str, np.ndarray]) -> list[np.ndarray]:
    """A layer's weights, in Keras's order and layout: (height, width, in, out), transposed (height, width, out, in)."""
    kinds = ("weight", "bias", "running_mean", "running_var")
    arrays = [weights[f"{name}.{kind}"] for kind in kinds if f"{name}.{kind}" in weights]
    return [array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.T for array in arrays]


def _block(features: Any, width: int, conv: str, norm: str) -> Any:
    features = layers.Conv2D(width, 3, padding="same", use_bias=False, name=conv)(features)
    return layers.ReLU()(layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=norm)(features))


def _cnn(images: Any, weights: dict[str, np.ndarray]) -> Any:
    features = images
    for place in (0, 4, 8):
        features = layers.MaxPool2D(2)(features) if place else features
        features = _block(features, len(weights[f"{place}.weight"]), f"{place}", f"{place + 1}")
    return layers.Dense(len(weights["13.weight"]), name="13")(layers.GlobalAveragePooling2D()(features))


def _unet(images: Any, weights: dict[str, np.ndarray]) -> Any:
    features, levels = images, []
    ups = sum(name.startswith("up.") and name.endswith(".weight") for name in weights)

    def double(features: Any, name: str) -> Any:
        width = len(weights[f"{name}.0.weight"])
        return _block(_block(features, width, f"{name}.0", f"{name}.1"), width, f"{name}.3", f"{name}.4")

    for number in range(ups + 1):
        features = double(layers.MaxPool2D(2)(features) if number else features, f"down.{number}")
        levels.append(features)
    for number in range(ups):
        width = weights[f"up.{number}.weight"].shape[1]
        raised = layers.Conv2DTranspose(width, 2, strides=2, name=f"up.{number}")(features)
        features = double(layers.Concatenate()([levels[ups - 1 - number], raised]), f"join.{number}")
    return layers.Conv2D(len(weights["last.weight"]), 1, name="last")(features)
