"""The workers of a group, each in a pass of its own, that go from one batch norm to the next together.

Every worker's pass is a lane: it runs until a batch norm, leaves its input there and lets the next lane run; when all
have come, all inputs are normalised by the group's statistics, and the lanes go on. So a pass never holds more or less
than one worker's n images, and draws the numbers that its worker draws alone: what a worker computes is the same,
bit by bit, wherever the others of its group run.

Lanes are greenlets: all run on this thread, so that autograd numbers their operations in one order, and backward, which
goes through them from the last to the first, adds up each lane's gradients in the same order for any number of lanes.
Each has leaves of its own in the place of the model's parameters: the gradients of a worker, apart from the others'.

Cost: the memory of all lanes' activations and gradients at once; 2 switches a lane and batch norm.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import greenlet
import torch
from torch import nn

from batchscale.errors import RecipeError
from batchscale.worker.shared_batch_norm import SharedPass, Sum, normalized

if TYPE_CHECKING:
    from batchscale.worker.batch_norm import WorkerBatchNorm
    from batchscale.worker.statistics import Statistics


@dataclass(frozen=True)
class _Arrival:
    """A lane's input at a batch norm."""

    layer: WorkerBatchNorm
    images: torch.Tensor


@dataclass
class _Lane:
    """A pass under way, and torch's state in it."""

    thread: greenlet.greenlet
    state: _State


class Lanes:
    """The lanes of one process.

    Args:
        model: whose trainable parameters each lane has leaves of its own for.
        device: whose random numbers a pass draws, beside the host's.
    """

    def __init__(self, model: nn.Module, device: torch.device) -> None:
        self._device = device
        self._places = [
            (module._parameters, name, parameter)
            for module in model.modules()
            for name, parameter in module._parameters.items()
            if parameter is not None and parameter.requires_grad
        ]
        self._leaves: list[dict[nn.Parameter, nn.Parameter]] = []

    def gradients(self, lane: int) -> dict[nn.Parameter, torch.Tensor | None]:
        """Of every trainable parameter a lane's gradient since it ran; None where it used none."""
        return {parameter: leaf.grad for parameter, leaf in self._leaves[lane].items()}

    def run(self, passes: Sequence[Callable[[], Any]], statistics: Statistics, place: int, add: Sum) -> list[Any]:
        """Run passes, one a lane, and give what each returns.

        Args:
            passes: of workers of one group, in order, forward only.
            statistics: of the model's batch norm; left as of the group.
            place: of the first of these workers in the group.
            add: over the processes that host the group.

        Raises:
            RecipeError: the passes do not run the same batch norms.
        """
        self._begin(len(passes))
        host, outer = greenlet.getcurrent(), _State.of(self._device)

        def arrive(layer: WorkerBatchNorm, images: torch.Tensor) -> torch.Tensor:
            output: torch.Tensor = host.switch(_Arrival(layer, images))
            return output

        shared = SharedPass(statistics.span, place, add, arrive)
        statistics.begin_pass(len(passes), shared)
        lanes = [_Lane(greenlet.greenlet(run), outer) for run in passes]
        try:
            values = [self._switch(number, lane) for number, lane in enumerate(lanes)]
            while any(isinstance(value, _Arrival) for value in values):
                images = self._met(shared, values)
                values = [self._switch(number, lane, images[number]) for number, lane in enumerate(lanes)]
        finally:
            for lane in lanes:
                lane.thread.throw(greenlet.GreenletExit)  # one that waits where another has raised is left
            outer.set()
        return values

    def _begin(self, count: int) -> None:
        """Leaves for so many lanes, without gradients."""
        while len(self._leaves) < count:
            self._leaves.append({p: nn.Parameter(p.detach()) for _, _, p in self._places})
        for leaves in self._leaves:
            for leaf in leaves.values():
                leaf.grad = None

    def _switch(self, number: int, lane: _Lane, *handed: torch.Tensor) -> Any:
        """Let a lane run up to its next batch norm, or its end."""
        with self._own_leaves(number):
            lane.state.set()
            value = lane.thread.switch(*handed)
            lane.state = _State.of(self._device)
        return value

    @contextmanager
    def _own_leaves(self, lane: int) -> Iterator[None]:
        """Within it the model's parameters are a lane's leaves."""
        leaves = self._leaves[lane]
        for parameters, name, parameter in self._places:
            parameters[name] = leaves[parameter]
        try:
            yield
        finally:
            for parameters, name, parameter in self._places:
                parameters[name] = parameter

    def _met(self, shared: SharedPass, values: Sequence[Any]) -> tuple[torch.Tensor, ...]:
        """What the lanes go on with from the batch norm that all have come to."""
        arrivals = [value for value in values if isinstance(value, _Arrival)]
        layers = {arrival.layer for arrival in arrivals} | ({None} if len(arrivals) < len(values) else set())
        if len(layers) > 1:
            raise RecipeError(
                f"batch_norm.span={shared.span}: the workers of a group run other batch norms than each other (a layer "
                f"that is left out by chance, or by what it sees), so these have no statistics over the group; use "
                f"batch_norm.span=1"
            )
        layer = arrivals[0].layer
        images = [arrival.images for arrival in arrivals]
        leaves = self._leaves[: len(images)]
        affine = [
            (of.get(layer.weight, layer.weight), of.get(layer.bias, layer.bias))
            for of in leaves  # frozen: no leaf
        ]
        return normalized(layer, shared, images, affine)


@dataclass(frozen=True)
class _State:
    """What torch keeps for a thread, and a lane has for itself: random numbers, gradients on or off, autocast."""

    device: torch.device
    random: tuple[torch.Tensor, ...]
    gradients: bool
    autocast: tuple[bool, torch.dtype]

    @classmethod
    def of(cls, device: torch.device) -> _State:
        """As it is now."""
        random = (torch.get_rng_state(), *([torch.cuda.get_rng_state(device)] if device.type == "cuda" else []))
        autocast = torch.is_autocast_enabled(device.type), torch.get_autocast_dtype(device.type)
        return cls(device, random, torch.is_grad_enabled(), autocast)

    def set(self) -> None:
        """Make it so."""
        torch.set_rng_state(self.random[0])
        if len(self.random) > 1:
            torch.cuda.set_rng_state(self.random[1], self.device)
        torch.set_grad_enabled(self.gradients)
        torch.set_autocast_enabled(self.device.type, self.autocast[0])
        torch.set_autocast_dtype(self.device.type, self.autocast[1])
