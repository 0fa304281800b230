"""A feed over images that tell their numbers."""

import torch

from batchscale.data.augmentation import Augmentation
from batchscale.data.examples import TensorExamples
from batchscale.data.feed import Feed, Normalizer
from batchscale.minibatch import Minibatch, StepPlan
from batchscale.order import StreamOrder

N = 103
PLAIN = Augmentation()


def images():
    """Every image tells its number in every pixel of its interior."""
    x = torch.zeros(N, 1, 6, 6, dtype=torch.uint8)
    x[:, :, :, :3] = torch.arange(N).view(N, 1, 1, 1) + 1
    x[:, :, :3, 3:] = 7
    return x


def feed(
    workers,
    per_worker,
    part,
    *,
    augmentation=PLAIN,
    partial="carry",
    pass_workers=1,
    seed=3,
    growth=(),
    span=1,
    kind=TensorExamples,
    **device,
):
    minibatch = Minibatch(workers, per_worker)
    return Feed(
        kind(images(), torch.arange(N)),
        plan=StepPlan(minibatch, N, 3, partial, growth),
        workers=part if callable(part) else lambda k: part,
        micro_batch=pass_workers * per_worker,
        order=StreamOrder(seed, N),
        augmentation=augmentation,
        normalizer=Normalizer([0.0], [1.0], torch.float32, torch.contiguous_format, torch.device("cpu")),
        span=span,
        **device,
    )
