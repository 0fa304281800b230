"""The two nets as functions of their weights, images (m, H, W, C).

Batch norm as torch has it: running <- 0.9 running + 0.1 statistic, the running variance unbiased, epsilon 1e-5 inside
the root. Weights (out, in, height, width) become (height, width, in, out).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

_MOMENTUM, _EPSILON = 0.9, 1e-5
_AXES = ("NHWC", "HWIO", "NHWC")

Weights = dict[str, Any]
Net = Callable[[Weights, Weights, jax.Array, bool], tuple[jax.Array, Weights]]


def split(stored: dict[str, np.ndarray]) -> tuple[Weights, Weights]:
    """(what is trained, running averages), in JAX's layout, under the names that they had."""
    arrays = {name: _layout(name, array) for name, array in stored.items() if not name.endswith("_tracked")}
    running = {name: array for name, array in arrays.items() if "running" in name}
    return {name: array for name, array in arrays.items() if name not in running}, running


def _layout(name: str, array: np.ndarray) -> np.ndarray:
    if array.ndim == 2:
        return array.T
    if array.ndim == 4 and name.startswith("up."):
        # Transposed: (in, out, height, width), and JAX does not turn the kernel round.
        return array.transpose(2, 3, 0, 1)[::-1, ::-1].copy()
    return array.transpose(2, 3, 1, 0) if array.ndim == 4 else array


def net_of(name: str) -> tuple[Net, Callable[[jax.Array, jax.Array], jax.Array]]:
    """(net, loss): weights, running averages, images, whether it trains -> logits, moved averages; mean of a loss."""
    return (_cnn, _softmax_loss) if name == "cnn" else (_unet, _binary_loss)


def _softmax_loss(logits: jax.Array, labels: jax.Array) -> jax.Array:
    return -jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], axis=1).mean()


def _binary_loss(logits: jax.Array, masks: jax.Array) -> jax.Array:
    pixels, truth = logits[..., 0], masks.astype(logits.dtype)
    return (-truth * jax.nn.log_sigmoid(pixels) - (1 - truth) * jax.nn.log_sigmoid(-pixels)).mean()


class _NetPass:
    """Layers by their names; collects the moved running averages."""

    def __init__(self, weights: Weights, averages: Weights, trains: bool) -> None:
        self._weights, self._averages, self._trains = weights, averages, trains
        self.moved = dict(averages)

    def block(self, images: jax.Array, conv: str, norm: str) -> jax.Array:
        """Convolution 3 x 3, batch norm, ReLU."""
        kernel = self._weights[f"{conv}.weight"]
        features = jax.lax.conv_general_dilated(images, kernel, (1, 1), "SAME", dimension_numbers=_AXES)
        return jax.nn.relu(self._norm(features, norm))

    def _norm(self, features: jax.Array, name: str) -> jax.Array:
        mean, variance = self._averages[f"{name}.running_mean"], self._averages[f"{name}.running_var"]
        if self._trains:
            count = features.size // features.shape[-1]
            mean, variance = features.mean((0, 1, 2)), features.var((0, 1, 2))
            for kind, statistic in (("mean", mean), ("var", variance * (count / (count - 1)))):
                key = f"{name}.running_{kind}"
                self.moved[key] = _MOMENTUM * self._averages[key] + (1 - _MOMENTUM) * jax.lax.stop_gradient(statistic)
        scale = self._weights[f"{name}.weight"] * jax.lax.rsqrt(variance + _EPSILON)
        return (features - mean) * scale + self._weights[f"{name}.bias"]


def _halved(images: jax.Array) -> jax.Array:
    return jax.lax.reduce_window(images, -jnp.inf, jax.lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")


def _cnn(weights: Weights, averages: Weights, images: jax.Array, trains: bool) -> tuple[jax.Array, Weights]:
    net, features = _NetPass(weights, averages, trains), images
    for place in (0, 4, 8):
        features = net.block(_halved(features) if place else features, f"{place}", f"{place + 1}")
    return features.mean((1, 2)) @ weights["13.weight"] + weights["13.bias"], net.moved


def _unet(weights: Weights, averages: Weights, images: jax.Array, trains: bool) -> tuple[jax.Array, Weights]:
    net, features, levels = _NetPass(weights, averages, trains), images, []
    ups = sum(name.startswith("up.") and name.endswith("weight") for name in weights)

    def double(features: jax.Array, name: str) -> jax.Array:
        return net.block(net.block(features, f"{name}.0", f"{name}.1"), f"{name}.3", f"{name}.4")

    for number in range(ups + 1):
        features = double(_halved(features) if number else features, f"down.{number}")
        levels.append(features)
    for number in range(ups):
        kernel, bias = weights[f"up.{number}.weight"], weights[f"up.{number}.bias"]
        raised = jax.lax.conv_transpose(features, kernel, (2, 2), "VALID", dimension_numbers=_AXES) + bias
        features = double(jnp.concatenate([levels[ups - 1 - number], raised], -1), f"join.{number}")
    logits = jax.lax.conv_general_dilated(features, weights["last.weight"], (1, 1), "VALID", dimension_numbers=_AXES)
    return logits + weights["last.bias"], net.moved
