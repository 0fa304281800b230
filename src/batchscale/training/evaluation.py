"""Evaluation: fixed chunks of images dealt to processes, sums in chunk order, every readable image once.

error = (1 / M) sum over images [argmax of logits != label];   loss = (1 / M) sum over images of cross-entropy
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from batchscale.comm import World
from batchscale.data.feed import Normalizer
from batchscale.data.images import Images, parts_ahead
from batchscale.errors import DataError
from batchscale.words import counted


@dataclass(frozen=True)
class Evaluation:
    """Exact counts and the mean loss over M images."""

    wrong: int
    images: int
    loss: float

    @property
    def error_percent(self) -> float:
        """100 wrong / images."""
        return 100.0 * self.wrong / self.images


@torch.no_grad()
def evaluate(
    model: nn.Module,
    images: Images,
    normalizer: Normalizer,
    world: World,
    chunk_images: int,
) -> Evaluation:
    """Error and loss of a model on a set, the same bits for every W.

    Args:
        model: put into evaluation mode, and back.
        images: the set, with its labels; M of it can be read.
        normalizer: as in training.
        world: the processes that share the chunks.
        chunk_images: images of one pass; the same for every W.

    Returns:
        The evaluation, on every process.

    Raises:
        DataError: not one image can be read.
    """
    chunks = -(-len(images) // chunk_images)
    found = torch.zeros((chunks, 3), dtype=torch.float64)  # images, wrong, summed loss; the others' chunks are zero
    was_training = model.training
    model.eval()
    mine = range(world.rank, chunks, world.size)
    parts = parts_ahead(images.readable, [slice(chunk * chunk_images, (chunk + 1) * chunk_images) for chunk in mine])
    for chunk, (pixels, labels) in zip(mine, parts, strict=True):
        if not len(labels):
            continue
        logits = model(normalizer(pixels))
        target = labels.to(logits.device)
        found[chunk, 0] = len(labels)
        found[chunk, 1] = (logits.argmax(1) != target).sum()
        found[chunk, 2] = F.cross_entropy(logits, target, reduction="sum")
    model.train(was_training)
    found = found.to(world.device)
    world.all_reduce(found, "all-reduce of the evaluation")
    evaluated, wrong, loss = 0, 0, 0.0
    for chunk_evaluated, chunk_wrong, chunk_loss in found.tolist():
        evaluated += int(chunk_evaluated)
        wrong += int(chunk_wrong)
        loss += chunk_loss
    if not evaluated:
        raise DataError(
            f"evaluation: not one of {counted(len(images), 'image')} can be read; see `batchscale data check`"
        )
    return Evaluation(wrong, evaluated, loss / evaluated)
