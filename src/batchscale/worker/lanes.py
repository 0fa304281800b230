"""The workers of a group, each in a pass of its own, that go from one batch norm to the next together.

Every worker's pass is a lane: it runs until a batch norm, leaves its input there and lets the next lane run; when all
have come, all inputs are normalised by the group's statistics, and the lanes go on. So a pass never holds more or less
than one worker's n images, and draws the numbers that its worker draws alone: what a worker computes is the same,
bit by bit, wherever the others of its group run.

Lanes are greenlets: all run on this thread, so that autograd numbers their operations in one order, and backward, which
goes through them from the last to the first, adds up each lane's gradients in the same order for any number of lanes.
Each has leaves of its own in the place of the model's parameters: the gradients of a worker, apart from the others'.

So a model must be a function of its input: what it keeps on itself from before a batch norm would be another worker's
after it. Such models are refused, and those whose parameters are reached by another way than their modules.

Cost: the memory of all lanes' activations and gradients at once; 2 switches a lane and batch norm.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
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

    def leave(self) -> None:
        """End the pass where it waits; one that will not end is left to the garbage collector."""
        for _ in range(_MOST_THROWS):
            if self.thread.dead:
                return
            with contextlib.suppress(Exception):
                self.thread.throw(greenlet.GreenletExit)


_MOST_THROWS = 10  # a pass may catch everything, and come to its next batch norm


class Lanes:
    """The lanes of one process.

    Args:
        model: whose trainable parameters each lane has leaves of its own for.
        device: of the passes.
        draws_random: a pass draws random numbers.

    Raises:
        RecipeError: a parameter has hooks of its own, or is of a class of its own: a leaf would lack them.
    """

    def __init__(self, model: nn.Module, device: torch.device, draws_random: bool) -> None:
        self._device, self._draws_random = device, draws_random
        self._names = {parameter: name for name, parameter in model.named_parameters() if parameter.requires_grad}
        # In the order of FlatGradients: the last one first.
        self._parameters = list(self._names)[::-1]
        self._numbers = {parameter: number for number, parameter in enumerate(self._parameters)}
        self._places = [
            (module._parameters, name, self._numbers[parameter])
            for module in model.modules()
            for name, parameter in module._parameters.items()
            if parameter is not None and parameter.requires_grad
        ]
        self._leaves: list[list[nn.Parameter]] = []
        for parameter, name in self._names.items():
            hooks = getattr(parameter, "_backward_hooks", None) or getattr(
                parameter, "_post_accumulate_grad_hooks", None
            )
            if hooks or type(parameter) is not nn.Parameter:
                what = "has hooks of its own" if hooks else f"is a {type(parameter).__name__}"
                raise _refused(f"the parameter {name!r} {what}, which a worker's own copy of it lacks")

    def gradients(self, lane: int) -> list[torch.Tensor | None]:
        """A lane's since it ran, in the order of ``FlatGradients.parameters``; None where it used none."""
        return [leaf.grad for leaf in self._leaves[lane]]

    def check_apart(self, parameter: nn.Parameter | None) -> None:
        """Raise where backward has given a parameter of the model a gradient that is no lane's.

        Args:
            parameter: that backward has given one; None for none.

        Raises:
            RecipeError: names it.
        """
        if parameter is not None:
            raise _refused(
                f"the parameter {self._names.get(parameter, '?')!r} is used past the module that holds it (through a "
                f"list, or a recomputed part), so a worker's gradient of it is not its own"
            )

    def run(self, passes: Sequence[Callable[[], Any]], statistics: Statistics, place: int, add: Sum) -> list[Any]:
        """Run passes, one a lane, and give what each returns.

        Args:
            passes: of workers of one group, in order, forward only.
            statistics: of the model's batch norm; left as of the group.
            place: of the first of these workers in the group.
            add: over the processes that host the group.

        Raises:
            RecipeError: the passes do not run the same batch norms, or not in this thread and once.
        """
        self._begin(len(passes))
        host, outer = greenlet.getcurrent(), _State.of(self._device, self._draws_random)

        def arrive(layer: WorkerBatchNorm, images: torch.Tensor) -> torch.Tensor:
            if greenlet.getcurrent() is host:
                raise _refused("a batch norm runs again in the backward pass, where no other worker comes to it")
            try:
                output: torch.Tensor = host.switch(_Arrival(layer, images))
            except greenlet.error:
                raise _refused("a batch norm runs in a thread of the model's own") from None
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
                lane.leave()
            outer.set()
        return values

    def _begin(self, count: int) -> None:
        """Leaves for so many lanes, without gradients."""
        while len(self._leaves) < count:
            self._leaves.append([nn.Parameter(parameter.detach()) for parameter in self._parameters])
        for leaves in self._leaves:
            for leaf in leaves:
                leaf.grad = None

    def _switch(self, number: int, lane: _Lane, *handed: torch.Tensor) -> Any:
        """Let a lane run up to its next batch norm, or its end."""
        with self._own_leaves(self._leaves[number]):
            lane.state.set()
            value = lane.thread.switch(*handed)
            lane.state = _State.of(self._device, self._draws_random)
        return value

    @contextlib.contextmanager
    def _own_leaves(self, leaves: Sequence[nn.Parameter]) -> Iterator[None]:
        """Within it the model's parameters are a lane's leaves."""
        for parameters, name, number in self._places:
            parameters[name] = leaves[number]
        try:
            yield
        finally:
            for parameters, name, number in self._places:
                parameters[name] = self._parameters[number]

    def _met(self, shared: SharedPass, values: Sequence[Any]) -> tuple[torch.Tensor, ...]:
        """What the lanes go on with from the batch norm that all have come to."""
        arrivals = [value for value in values if isinstance(value, _Arrival)]
        layers = {arrival.layer for arrival in arrivals} | ({None} if len(arrivals) < len(values) else set())
        if len(layers) > 1:
            raise _refused(
                "its workers run other batch norms than each other (a layer that is left out by chance, or by what it "
                "sees), so these have no statistics over the group"
            )
        layer, images = arrivals[0].layer, [arrival.images for arrival in arrivals]
        affine = [
            (self._leaf(layer.weight, leaves), self._leaf(layer.bias, leaves)) for leaves in self._leaves[: len(images)]
        ]
        return normalized(layer, shared, images, affine)

    def _leaf(self, parameter: nn.Parameter | None, leaves: Sequence[nn.Parameter]) -> torch.Tensor | None:
        """A lane's, in the place of a parameter; a frozen one has none and stays."""
        number = None if parameter is None else self._numbers.get(parameter)
        return parameter if number is None else leaves[number]


def _refused(sentence: str) -> RecipeError:
    return RecipeError(
        f"batch_norm.span above 1, workers with a pass each: {sentence}; use batch_norm.span=1, or a model that is a "
        f"function of its input alone"
    )


@dataclass(frozen=True)
class _State:
    """What torch keeps for a thread, and a lane has for itself: random numbers, gradients on or off, autocast."""

    device: torch.device
    random: tuple[torch.Tensor, ...]
    gradients: bool
    autocast: tuple[bool, torch.dtype, bool]

    @classmethod
    def of(cls, device: torch.device, draws_random: bool) -> _State:
        """As it is now; without the random numbers of a model that draws none."""
        random: tuple[torch.Tensor, ...] = ()
        if draws_random:
            cuda = [torch.cuda.get_rng_state(device)] if device.type == "cuda" else []
            random = (torch.get_rng_state(), *cuda)
        kind = device.type
        autocast = torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind), torch.is_autocast_cache_enabled()
        return cls(device, random, torch.is_grad_enabled(), autocast)

    def set(self) -> None:
        """Make it so."""
        if self.random:
            torch.set_rng_state(self.random[0])
        if len(self.random) > 1:
            torch.cuda.set_rng_state(self.random[1], self.device)
        torch.set_grad_enabled(self.gradients)
        enabled, dtype, cached = self.autocast
        torch.set_autocast_enabled(self.device.type, enabled)
        torch.set_autocast_dtype(self.device.type, dtype)
        torch.set_autocast_cache_enabled(cached)
