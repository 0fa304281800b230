"""batchscale's own contender: the trainer's feed, a minibatch in one pass."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import torch

from batchscale.bench.data.assignment import DataAssignment
from batchscale.build.inputs import make_feed, make_normalizer, order_of
from batchscale.build.planning import plan_of
from batchscale.data.examples import Pairs


def feed_minibatches(assignment: DataAssignment) -> Iterator[Pairs]:
    """Minibatch after minibatch, as a run gets them."""
    recipe, dataset = assignment.recipe, assignment.dataset
    normalizer = make_normalizer(recipe, dataset, own_data=False, device=torch.device("cpu"))
    plan = plan_of(recipe, len(dataset.train))
    order = order_of(recipe, plan, None)
    feed = make_feed(
        recipe, dataset, normalizer, plan, order,
        workers=range, micro_batch=assignment.minibatch_images, span=recipe.batch_norm.span,
    )  # fmt: skip
    try:
        for step in itertools.count():
            for batch in feed.passes(step):
                yield batch.inputs, batch.targets
    finally:
        feed.close()
