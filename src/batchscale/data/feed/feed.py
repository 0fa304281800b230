"""The feed: the passes of every step, the next ones made ready while the last step computes.

Images come as uint8, a process's part of a minibatch at once; floating-point arithmetic (normalisation)
acts on one pass at a time, so that in exact mode it never sees more or less than one worker's n images.
How they come to the device, ``delivery.py`` says.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from threading import Lock

import numpy as np

from batchscale.data.augmentation import Augmentation, Indices
from batchscale.data.examples import Examples, TensorExamples
from batchscale.data.feed.carrier import Carried
from batchscale.data.feed.copies import Copies
from batchscale.data.feed.delivery import delivery_of
from batchscale.data.feed.normalizer import Batch, Normalizer
from batchscale.data.threads import compute_alone
from batchscale.minibatch import StepPlan
from batchscale.order import StreamOrder

_BLOCK_IMAGES = 1 << 14  # shuffled at once: 0.5 ms a step for 256 images becomes 0.05


class Feed:
    """Passes of one process, for any step: a pure function of (order, step), the next steps' made in advance.

    Args:
        images: what is trained on, and its labels.
        plan: the steps of the run.
        workers: k -> the numbers of this process's workers.
        micro_batch: images in one pass at most, but never less than a group's.
        order: of the stream.
        augmentation: of the images.
        normalizer: makes the floats.
        span: workers of a group, which a pass never parts.
        fewest_passes: step -> how many passes it has at least, where its workers are so many.
        resident: the same images, on the normalizer's device; None where they lie on the host.
        copies: to a device; None for those of the normalizer's.
    """

    def __init__(
        self,
        images: Examples,
        *,
        plan: StepPlan,
        workers: Callable[[int], range],
        micro_batch: int,
        order: StreamOrder,
        augmentation: Augmentation,
        normalizer: Normalizer,
        span: int = 1,
        fewest_passes: Callable[[int], int] = lambda step: 1,
        resident: TensorExamples | None = None,
        copies: Copies | None = None,
    ) -> None:
        self._fewest_passes = fewest_passes
        self._plan, self._workers, self._micro_batch, self._span = plan, workers, micro_batch, span
        self._order, self._steps_ahead = order, images.steps_ahead
        self._delivery = delivery_of(images, order.seed, augmentation, normalizer, resident, copies)
        self._block: tuple[int, Indices, Indices] = (0, np.empty((0, 0), np.int64), np.empty((0, 0), np.int64))
        self._block_lock = Lock()
        self._ahead: dict[int, Future[Sequence[Batch]]] = {}
        self._now: Sequence[Batch] = ()
        self._pool = ThreadPoolExecutor(images.steps_ahead, "batchscale-feed", compute_alone)

    def indices(self, step: int) -> tuple[Indices, Indices]:
        """(epoch, image) of every image of this process in this step, in worker order."""
        with self._block_lock:
            first, epochs, images = self._block
            if not first <= step < first + len(images):
                self._block = first, epochs, images = step, *self._shuffle_block(step)
        return epochs[step - first], images[step - first]

    def _shuffle_block(self, first: int) -> tuple[Indices, Indices]:
        """Epochs and images of steps of one minibatch from ``first`` on, (steps, images): they share one fixed cost."""
        phase = self._plan.phase(first)
        workers, n = self._workers(phase.minibatch.workers), phase.minibatch.per_worker
        hosted = np.arange(workers.start * n, workers.stop * n)
        steps = np.arange(min(max(_BLOCK_IMAGES // len(hosted), 1), self._plan.same_until(first) - first))
        positions = phase.position(first) + steps[:, None] * phase.minibatch.images + hosted
        epochs, places = np.divmod(positions, phase.epoch_images)
        images = np.empty_like(places)
        for epoch in np.unique(epochs):
            inside = epochs == epoch
            images[inside] = self._order.at_places(int(epoch), places[inside])
        return epochs, images

    def _make(self, step: int) -> Sequence[Batch]:
        drawn = self.indices(step)
        return self._delivery.passes(drawn, self._parts(step, len(drawn[1])))

    def _parts(self, step: int, total: int) -> list[slice]:
        """Which of so many examples each pass has."""
        group = self._plan.minibatch_at(step).per_worker * self._span
        groups, fewest, at_once = -(-total // group), self._fewest_passes(step), max(self._micro_batch // group, 1)
        if -(-groups // at_once) < fewest:
            at_once = -(-groups // fewest)
        most = at_once * group
        return [slice(start, min(start + most, total)) for start in range(0, total, most)]

    def passes(self, step: int) -> Sequence[Batch]:
        """The passes of this step, in worker order; the next steps' are begun before this returns.

        On a device a pass is made when it is taken, and none can be after the next call.
        """
        _close(self._now)
        ahead = self._ahead.pop(step, None)
        wanted = range(step + 1, min(step + 1 + self._steps_ahead, self._plan.total_steps))
        for skipped in self._ahead.keys() - set(wanted):
            future = self._ahead.pop(skipped)
            future.cancel()
            future.add_done_callback(_close_result)
        self._now = ahead.result() if ahead is not None else self._make(step)
        for later in wanted:
            if later not in self._ahead:
                self._ahead[later] = self._pool.submit(self._make, later)
        if isinstance(self._now, Carried):
            self._now.following = partial(self._ready, step + 1)
        return self._now

    def _ready(self, step: int) -> Carried[Batch] | None:
        """The passes of a step that is begun in advance, where they are ready to be carried."""
        future = self._ahead.get(step)
        if future is None or not future.done() or future.exception() is not None:
            return None
        passes = future.result()
        return passes if isinstance(passes, Carried) else None

    def close(self) -> None:
        """Stop the feed's threads."""
        self._pool.shutdown(wait=True, cancel_futures=True)


def _close(passes: Sequence[Batch]) -> None:
    if isinstance(passes, Carried):
        passes.close()


def _close_result(future: Future[Sequence[Batch]]) -> None:
    if not future.cancelled() and future.exception() is None:
        _close(future.result())
