"""JAX: one process a device group, gradients averaged over the processes by collectives on Gloo, optax.

Source: docs.jax.dev/en/latest/multi_process.html (processes, arrays that span them), .../notebooks/shard_map.html (code
of one device, pmean over all), optax.readthedocs.io (optimizers). A net is a function of its weights.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from functools import partial
from typing import Any

from protocol import ProcessWork, Setting, begin, serve

WORK = begin()

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
import optax  # noqa: E402
from jax.sharding import NamedSharding  # noqa: E402
from jax.sharding import PartitionSpec as P  # noqa: E402
from nets_jax import net_of, split  # noqa: E402

jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_cpu_collectives_implementation", "gloo")


class JaxTraining:
    """A compiled step over arrays that span the processes."""

    def __init__(self, work: ProcessWork) -> None:
        jax.distributed.initialize(f"127.0.0.1:{os.environ['MASTER_PORT']}", work.processes, work.rank)
        self._work, (self._net, self._loss) = work, net_of(work.net)
        self._images, self._targets = work.examples("train", channels_last=True)
        self._mesh = jax.make_mesh((work.processes,), ("processes",))
        self._evaluate = jax.jit(lambda weights, averages, images: self._net(weights, averages, images, False)[0])

    def steps(self, setting: Setting) -> Iterator[jax.Array]:
        """Minibatches are made of every process's rows."""
        weights, averages = split(self._work.weights())
        optimizer = _optimizer(setting)
        step = self._compiled(optimizer)
        everywhere, parted = NamedSharding(self._mesh, P()), NamedSharding(self._mesh, P("processes"))
        held = jax.device_put((weights, averages, optimizer.init(weights)), everywhere)
        for rows in itertools.cycle(self._work.rows(setting)):
            images = jax.make_array_from_process_local_data(parted, self._images[rows])
            targets = jax.make_array_from_process_local_data(parted, self._targets[rows])
            held, loss = step(held, images, targets)
            self._held = held
            yield loss

    def _compiled(self, optimizer: optax.GradientTransformation) -> Any:
        @partial(jax.jit, donate_argnums=0)
        def step(held: Any, images: jax.Array, targets: jax.Array) -> tuple[Any, jax.Array]:
            weights, averages, state = held
            loss, averages, gradients = passed(weights, averages, images, targets)
            changes, state = optimizer.update(gradients, state, weights)
            return (optax.apply_updates(weights, changes), averages, state), loss

        # The code of one process: so that batch norm's statistics are those of its own examples, as in DDP.
        @partial(
            jax.shard_map, mesh=self._mesh, in_specs=(P(), P(), P("processes"), P("processes")), out_specs=P(),
            check_vma=False,
        )  # fmt: skip
        def passed(weights: Any, averages: Any, images: jax.Array, targets: jax.Array) -> Any:
            def loss_of(weights: Any) -> tuple[jax.Array, Any]:
                logits, moved = self._net(weights, averages, images, True)
                return self._loss(logits, targets), moved

            (loss, moved), gradients = jax.value_and_grad(loss_of, has_aux=True)(weights)
            return jax.lax.pmean((loss, moved, gradients), "processes")

        return step

    def predict(self, images: np.ndarray) -> np.ndarray:
        """By the running averages over all processes."""
        weights, averages = jax.tree.map(lambda array: array.addressable_data(0), self._held[:2])
        logits = np.asarray(self._evaluate(weights, averages, images.transpose(0, 2, 3, 1)))
        return logits.transpose(0, 3, 1, 2) if logits.ndim == 4 else logits


def _optimizer(setting: Setting) -> optax.GradientTransformation:
    options, rates = setting.optimizer, jnp.asarray(setting.learning_rates())

    def rate(step: jax.Array) -> jax.Array:
        return rates[step % len(rates)]

    if options["name"] == "sgd":
        return optax.sgd(rate, momentum=options["momentum"], nesterov=options["nesterov"])
    return optax.adam(rate, b1=options["beta1"], b2=options["beta2"], eps=options["epsilon"])


if __name__ == "__main__":
    serve(WORK, JaxTraining, version=jax.__version__)
