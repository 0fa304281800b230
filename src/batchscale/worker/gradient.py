"""A worker's gradient: that of the loss summed over its images, divided once, at the root of backward, by kn.

g_j = (1 / kn) sum_{x in B_j} grad l(x, w);   the step's gradient is sum_j g_j

Source: Goyal et al. 2017, section 3 (normalise by the total minibatch kn, then all-reduce with SUM).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from batchscale.errors import RecipeError
from batchscale.words import counted
from batchscale.worker.batch_norm import Statistics


def summed_loss(logits: torch.Tensor, labels: torch.Tensor, label_smoothing: float = 0.0) -> torch.Tensor:
    """Softmax cross-entropy, summed over the images of a pass (a float, not yet divided by kn)."""
    return F.cross_entropy(logits, labels, reduction="sum", label_smoothing=label_smoothing)


class Probe:
    """What one trial pass of a model in training mode shows, before any training.

    Args:
        model: with its batch norm already replaced; left as it was.
        images: float (g n, C, H, W), those that are normalised together.
        num_classes: expected width of the logits.

    Attributes:
        draws_random: the forward pass drew random numbers (dropout, stochastic depth, in any form).

    Raises:
        RecipeError: the output has another shape than (n, num_classes), or a forward pass writes to a buffer.
    """

    def __init__(self, model: nn.Module, statistics: Statistics, images: torch.Tensor, num_classes: int) -> None:
        buffers = {name: b.clone() for name, b in model.named_buffers()}
        cpu_rng = torch.get_rng_state()
        cuda_rng = torch.cuda.get_rng_state(images.device) if images.is_cuda else None
        statistics.begin_pass(statistics.span)
        try:
            with torch.no_grad():
                logits = model.train()(images)
        except RecipeError:
            raise
        except Exception as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise RecipeError(
                f"model: its forward pass failed on images {tuple(images.shape)}: {reason}; "
                f"choose a model that fits the data's images"
            ) from error
        self.draws_random = not torch.equal(cpu_rng, torch.get_rng_state())
        torch.set_rng_state(cpu_rng)
        if cuda_rng is not None:
            self.draws_random |= not torch.equal(cuda_rng, torch.cuda.get_rng_state(images.device))
            torch.cuda.set_rng_state(cuda_rng, images.device)
        if not isinstance(logits, torch.Tensor) or logits.shape != (len(images), num_classes):
            got = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
            raise RecipeError(
                f"model: gives {got} for {counted(len(images), 'image')}: must give logits "
                f"({len(images)}, {num_classes})"
            )
        changed = [n for n, b in model.named_buffers() if not torch.equal(b, buffers[n])]
        if changed:
            raise RecipeError(
                f"model: its forward pass writes to the buffer {changed[0]!r}: only batch norm's running averages "
                f"have a meaning over k workers; take that layer out"
            )
