"""The loss of a task as one would write it in plain torch: a mean over a minibatch, for the peers and the ceiling.

Where every pixel has a class, the mean over all pixels is the mean over images of an image's mean.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch.nn.functional as F
from torch import nn

from batchscale.recipe import Recipe
from batchscale.structure import IGNORED
from batchscale.task import Task

MeanLoss = Callable[[Any, Any], Any]


def mean_loss(recipe: Recipe, task: Task) -> MeanLoss:
    """(outputs, targets) -> the mean over examples; by the task's own losses where no plainer form is known.

    Args:
        recipe: resolved.
        task: the recipe's, of unit "example".
    """
    kind, smoothing = recipe.loss.kind, recipe.loss.label_smoothing
    if recipe.task == "classification" and kind == "cross_entropy":
        return nn.CrossEntropyLoss(label_smoothing=smoothing)
    if recipe.task == "segmentation" and kind == "cross_entropy":
        plain = nn.CrossEntropyLoss(label_smoothing=smoothing, ignore_index=IGNORED)
        return lambda logits, masks: plain(logits, masks.long())
    if recipe.task == "segmentation" and kind == "binary":
        return lambda logits, masks: F.binary_cross_entropy_with_logits(logits[:, 0], masks.to(logits.dtype))
    return lambda outputs, targets: task.losses(outputs, targets).mean()
