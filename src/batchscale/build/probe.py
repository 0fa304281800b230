"""One trial pass of a model in training mode, before any training."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from batchscale.errors import RecipeError
from batchscale.structure import num_examples, tensors
from batchscale.task import Task
from batchscale.worker.statistics import Statistics


class Probe:
    """What one trial pass of a model in training mode shows, before any training.

    Args:
        model: with its batch norm already replaced; left as it was.
        statistics: of its batch norm.
        inputs: of g n examples, those that are normalised together.
        targets: of the same examples.
        task: of the run.

    Attributes:
        draws_random: the forward pass drew random numbers (dropout, stochastic depth, in any form).

    Raises:
        RecipeError: the outputs are not what the task learns from, or a forward pass writes to a buffer.
    """

    def __init__(self, model: nn.Module, statistics: Statistics, inputs: Any, targets: Any, task: Task) -> None:
        buffers = {name: b.clone() for name, b in model.named_buffers()}
        device = next(tensors(inputs)).device
        cpu_rng = torch.get_rng_state()
        cuda_rng = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
        statistics.begin_pass(statistics.span)
        outputs = self._outputs(model, inputs, targets, task)
        self.draws_random = not torch.equal(cpu_rng, torch.get_rng_state())
        torch.set_rng_state(cpu_rng)
        if cuda_rng is not None:
            self.draws_random |= not torch.equal(cuda_rng, torch.cuda.get_rng_state(device))
            torch.cuda.set_rng_state(cuda_rng, device)
        task.check(outputs, num_examples(inputs))
        changed = [n for n, b in model.named_buffers() if not torch.equal(b, buffers[n])]
        if changed:
            raise RecipeError(
                f"model: its forward pass writes to the buffer {changed[0]!r}: only batch norm's running averages "
                f"have a meaning over k workers; take that layer out"
            )

    @staticmethod
    def _outputs(model: nn.Module, inputs: Any, targets: Any, task: Task) -> Any:
        """What the model gives in training; whatever it raises becomes one line."""
        shapes = ", ".join(str(tuple(tensor.shape)) for tensor in tensors(inputs))
        try:
            with torch.no_grad():
                return task.outputs(model.train(), inputs, targets)
        except RecipeError:
            raise
        except Exception as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise RecipeError(
                f"model: its forward pass failed on {task.examples} {shapes}: {reason}; "
                f"choose a model that fits the data's {task.examples}"
            ) from error
