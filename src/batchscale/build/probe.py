"""Trial passes of a model in training mode, before any training: what it draws and writes to, and whether it can train.

The first is forward alone. On a GPU, or where deterministic algorithms are on, one with its backward pass follows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from batchscale.build.deterministic import lacks_a_form, refusal
from batchscale.build.memory import does_not_fit, first_line, is_out_of_memory
from batchscale.errors import RecipeError
from batchscale.structure import num_examples, tensors
from batchscale.task import Task
from batchscale.worker.statistics import Statistics

_OF_TORCH = frozenset(vars(nn.Module()))
"""What every module has of its own."""


class Probe:
    """What one trial pass of a model in training mode shows, before any training.

    Args:
        model: with its batch norm already replaced; left as it was.
        statistics: of its batch norm.
        inputs: of the fewest examples that a pass holds.
        targets: of the same examples.
        task: of the run.
        workers: whose examples they are: a whole group, or a part of one.

    Attributes:
        draws_random: the forward pass drew random numbers (dropout, stochastic depth, in any form).
        kept: where the forward pass has left tensors on the model, such as "encoder.skip"; "" where nowhere.

    Raises:
        RecipeError: the outputs are not what the task learns from, or a forward pass writes to a buffer.
        ExactnessError: an operation has no deterministic form where such are on.
    """

    def __init__(
        self, model: nn.Module, statistics: Statistics, inputs: Any, targets: Any, task: Task, workers: int
    ) -> None:
        self._model, self._statistics, self._task = model, statistics, task
        self._inputs, self._targets, self._workers = inputs, targets, workers
        attributes = _tensors_on(model)
        buffers = {name: b.clone() for name, b in model.named_buffers()}
        device = next(tensors(inputs)).device
        cpu_rng = torch.get_rng_state()
        cuda_rng = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
        outputs = self._outputs()
        self.kept = next((name for name, ids in _tensors_on(model).items() if attributes.get(name) != ids), "")
        self.draws_random = not torch.equal(cpu_rng, torch.get_rng_state())
        torch.set_rng_state(cpu_rng)
        if cuda_rng is not None:
            self.draws_random |= not torch.equal(cuda_rng, torch.cuda.get_rng_state(device))
            torch.cuda.set_rng_state(cuda_rng, device)
        task.check(outputs, num_examples(inputs))
        task.check_targets(outputs, targets)
        changed = [n for n, b in model.named_buffers() if not torch.equal(b, buffers[n])]
        if changed:
            raise RecipeError(
                f"model: its forward pass writes to the buffer {changed[0]!r}: only batch norm's running averages "
                f"have a meaning over k workers; take that layer out"
            )

    def _outputs(self) -> Any:
        """What the model gives in training; whatever it raises becomes one line."""
        shapes = ", ".join(str(tuple(tensor.shape)) for tensor in tensors(self._inputs))
        try:
            return self._forward()
        except RecipeError:
            raise
        except Exception as error:
            self._refuse(error, self._forward)
            raise RecipeError(
                f"model: its forward pass failed on {self._task.examples} {shapes}: {first_line(error)}; "
                f"choose a model that fits the data's {self._task.examples}"
            ) from error

    @torch.no_grad()
    def _forward(self) -> Any:
        self._statistics.begin_part(self._workers)
        return self._task.outputs(self._model.train(), self._inputs, self._targets)

    def check_precision(self, forward: nn.Module, precision: str) -> None:
        """Run forward once in the run's precision, with gradients on: it may lack a kernel that the weights' own has.

        Args:
            forward: the model within its precision.
            precision: its name.

        Raises:
            RecipeError: the pass fails in this precision, or does not fit into memory.
        """
        device = next(tensors(self._inputs)).device
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            try:
                self._loss(forward)
            except Exception as error:
                self._refuse(error, lambda: self._loss(self._model))
                raise RecipeError(
                    f"precision={precision}: the model's forward pass fails in it on this device: {first_line(error)}; "
                    f"use precision=fp32, or another model"
                ) from error

    def check_whole_pass(self, forward: nn.Module) -> None:
        """Run forward and backward once; weights, running averages and random state are left as they were.

        Args:
            forward: what a pass of the run calls; the model within its precision.

        Raises:
            RecipeError: the pass does not fit into memory.
            ExactnessError: an operation has no deterministic form where such are on.
        """
        device = next(tensors(self._inputs)).device
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            try:
                self._loss(forward).backward()  # type: ignore[no-untyped-call]
            except Exception as error:
                self._refuse(error, lambda: self._loss(self._model))
                raise
            finally:
                for parameter in self._model.parameters():
                    parameter.grad = None

    def check_evaluation(self, inputs: Any, targets: Any) -> None:
        """Run one evaluation of test examples, whose form is another one than the training examples'.

        Raises:
            RecipeError: it fails.
        """
        device = next(tensors(self._inputs)).device
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), torch.no_grad():
            try:
                self._task.evaluate_pass(self._model.eval(), inputs, targets)
            except Exception as error:
                self._refuse(error, lambda: self._task.evaluate_pass(self._model, inputs, targets))
                shapes = " and ".join(str(tuple(tensor.shape)) for tensor in tensors((inputs, targets)))
                raise RecipeError(
                    f"data: the test part has another form than the training part, and its evaluation failed on "
                    f"{shapes}: {first_line(error)}; give both one form, or a model that fits both"
                ) from error
            finally:
                self._model.train()

    def _loss(self, model: nn.Module) -> torch.Tensor:
        self._statistics.begin_part(self._workers)
        self._model.train()
        return self._task.train_pass(model, self._inputs, self._targets)[0]

    def _refuse(self, error: Exception, run: Callable[[], Any]) -> None:
        """Raise where a pass failed for a reason of the device, and not of the model."""
        if is_out_of_memory(error):
            examples = num_examples(self._inputs)
            raise does_not_fit(examples // self._workers, examples, error) from error
        if lacks_a_form(error):
            raise refusal(error, self._model, run) from error


def _tensors_on(model: nn.Module) -> dict[str, list[int]]:
    """Every attribute of a module that holds tensors, itself or inside of it -> which; parameters and buffers are none.

    Those that a pass makes are alive as long as the attribute is, so no two have one identity.
    """
    return {
        f"{place}.{name}".lstrip("."): ids
        for place, module in model.named_modules()
        for name, value in vars(module).items()
        if name not in _OF_TORCH and not isinstance(value, Statistics | nn.Module)
        if (ids := [id(tensor) for tensor in tree_leaves(value) if isinstance(tensor, torch.Tensor)])
    }


def wants_whole_pass(device: torch.device) -> bool:
    """Whether a trial of forward and backward may find what a forward pass does not; else it would only cost."""
    return device.type == "cuda" or torch.are_deterministic_algorithms_enabled()
