"""TensorFlow: MultiWorkerMirroredStrategy with a training loop of its own, tf.data, optimizers of Keras 2.

Keras 3 does not know this strategy, so Keras 2 (tf-keras) it is, as TensorFlow's documentation has it.
Source: www.tensorflow.org/tutorials/distribute/multi_worker_with_ctl.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any

from protocol import ProcessWork, Setting, begin, serve

WORK = begin()
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"
os.environ["TF_CONFIG"] = json.dumps(
    {
        "cluster": {"worker": [f"127.0.0.1:{port}" for port in WORK.ports]},
        "task": {"type": "worker", "index": WORK.rank},
    }
)

import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402
from nets_keras import loss_of, net_of  # noqa: E402
from tf_keras import optimizers  # noqa: E402


class _Listed(optimizers.schedules.LearningRateSchedule):
    """The lr of every step, from a list."""

    def __init__(self, rates: np.ndarray) -> None:
        self._rates = tf.constant(rates)

    def __call__(self, step: Any) -> tf.Tensor:
        return tf.gather(self._rates, tf.cast(step, tf.int64) % len(self._rates))


class WorkersTraining:
    """A Keras model within the strategy's scope, and a compiled step."""

    def __init__(self, work: ProcessWork) -> None:
        tf.config.threading.set_intra_op_parallelism_threads(work.threads)
        # One more, on as many cores: with a single one a step over two processes was seen to hang on a busy machine.
        tf.config.threading.set_inter_op_parallelism_threads(work.threads + 1)
        self._work, self._loss = work, loss_of(work.net)
        self._strategy = tf.distribute.MultiWorkerMirroredStrategy()
        self._images, self._targets = (tf.constant(array) for array in work.examples("train", channels_last=True))

    def steps(self, setting: Setting) -> Iterator[tf.Tensor]:
        """The tutorial's loop."""
        with self._strategy.scope():
            self._model = net_of(self._work, self._images.shape[1:])
            optimizer = _optimizer(setting)
        batches = iter(self._strategy.distribute_datasets_from_function(lambda _: self._dataset(setting)))

        def passed(images: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
            with tf.GradientTape() as tape:
                losses = self._loss(targets, self._model(images, training=True))
                loss = tf.nn.compute_average_loss(losses, global_batch_size=setting.minibatch)
            gradients = tape.gradient(loss, self._model.trainable_variables)
            optimizer.apply_gradients(zip(gradients, self._model.trainable_variables, strict=True))
            return loss

        @tf.function
        def step(iterator: Any) -> tf.Tensor:
            losses = self._strategy.run(passed, args=next(iterator))
            return self._strategy.reduce(tf.distribute.ReduceOp.SUM, losses, axis=None)

        @tf.function
        def told(images: tf.Tensor) -> tf.Tensor:
            return self._strategy.run(lambda: self._model(images, training=False))

        self._told = told
        while True:
            yield step(batches)

    def _dataset(self, setting: Setting) -> tf.data.Dataset:
        rows = tf.data.Dataset.from_tensor_slices(self._work.rows(setting)).repeat()
        return rows.map(lambda places: (tf.gather(self._images, places), tf.gather(self._targets, places))).prefetch(2)

    def predict(self, images: np.ndarray) -> np.ndarray:
        """By the running averages that this process has."""
        logits = self._told(tf.constant(images.transpose(0, 2, 3, 1))).numpy()
        return logits.transpose(0, 3, 1, 2) if logits.ndim == 4 else logits


def _optimizer(setting: Setting) -> Any:
    options, rates = setting.optimizer, _Listed(setting.learning_rates())
    if options["name"] == "sgd":
        return optimizers.SGD(rates, momentum=options["momentum"], nesterov=options["nesterov"])
    # Keras adds epsilon to the root before it is debiased: eps sqrt(1 - beta2^t), here of the last step.
    epsilon = options["epsilon"] * (1 - options["beta2"] ** len(setting.learning_rates())) ** 0.5
    return optimizers.Adam(rates, beta_1=options["beta1"], beta_2=options["beta2"], epsilon=epsilon)


if __name__ == "__main__":
    serve(WORK, WorkersTraining, version=tf.__version__)
