"""The gradients of units one after the other: an example's by torch.func where it works, else by plain backward.

g_i = (1 / b) grad of the summed loss of unit i's b examples, at the weights of the step, the model in training mode
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.func import functional_call, grad, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from batchscale.build.state import State, devices_in_use
from batchscale.comm import World
from batchscale.data.examples import Examples
from batchscale.measure.noise_scale.blocks import BlockSums
from batchscale.measure.own import OwnState
from batchscale.measure.stated import watched
from batchscale.randomness import key
from batchscale.structure import columns, mapped, num_examples, part

_NUMBERS_AT_ONCE = 1 << 23  # of examples' gradients, 32 MiB of float32
_MOST_AT_ONCE = 64  # examples of one vectorised pass
_MOST_BLOCKS = 20  # of the jackknife: t is 1.73 for 1.64, and a block's gradients are held in float32
_AGREES = 1e-3  # how near a vectorised gradient must be to backward's; they differ by rounding, about 1e-6
_DRAWN = 205  # stream: the random numbers of a unit's pass (dropout)


@dataclass
class UnitGradients:
    """Gradients of units of a set, at a state.

    Attributes:
        state: opened, or one's own.
        per_unit: b; 1 for the unit "example".
        world: the processes that share the blocks.
        seed: of what the model draws.
        weights: all that are trained, a shared one once.
        vectorised: whether torch.func gives the gradients of single examples; found out at the first of them.
    """

    state: State | OwnState
    per_unit: int
    world: World
    seed: int
    vectorised: bool = True
    weights: list[nn.Parameter] = field(init=False)
    _names: list[str] = field(init=False)
    _draws_random: bool = field(init=False, default=False)

    def __post_init__(self) -> None:
        trained = [(name, weight) for name, weight in self.state.model.named_parameters() if weight.requires_grad]
        self._names, self.weights = [name for name, _ in trained], [weight for _, weight in trained]
        self.vectorised = self.per_unit == 1

    def sums(self, examples: Examples, weighting: torch.Tensor | None = None) -> tuple[BlockSums, BlockSums | None]:
        """Over blocks of units of the examples; and the same with a weight for every number of a gradient.

        Args:
            examples: a whole number of units.
            weighting: (all weights,), float64; None: the plain sums alone.
        """
        units = len(examples) // self.per_unit
        count = min(_MOST_BLOCKS, units)
        cuts = [number * units // count for number in range(count + 1)]
        length = sum(weight.numel() for weight in self.weights)
        summed = torch.zeros((count, length), device=self.state.device)
        squares = torch.zeros((2, count), dtype=torch.float64, device=self.state.device)
        modes = [(module, module.training) for module in self.state.model.modules()]
        buffers = {name: buffer.clone() for name, buffer in self.state.model.named_buffers()}
        self.state.model.train()
        try:
            self._try_vectorised(examples)
            own = list(enumerate(itertools.pairwise(cuts)))[self.world.rank :: self.world.size]
            for block, (first, end) in watched(own, "noise-scale", self.world.rank == 0):
                total = torch.zeros(length, dtype=torch.float64, device=self.state.device)
                for gradients in self._block(examples, first, end):
                    total += gradients.sum(0, dtype=torch.float64)
                    square = gradients.double().square_()
                    squares[0, block] += square.sum()
                    if weighting is not None:
                        squares[1, block] += (square @ weighting).sum()
                summed[block] = total
        finally:
            for module, mode in modes:
                module.training = mode
            for name, buffer in self.state.model.named_buffers():  # batch norm's running averages have moved
                buffer.copy_(buffers[name])
        for sums in (summed, squares):  # the others' rows are zero: nothing is rounded
            self.world.all_reduce(sums, "all-reduce of the noise scale's blocks")
        numbers = torch.tensor([end - first for first, end in itertools.pairwise(cuts)], dtype=torch.float64).numpy()
        plain = BlockSums(_products(summed), squares[0].cpu().numpy(), numbers)
        return plain, None if weighting is None else BlockSums(
            _products(summed, weighting), squares[1].cpu().numpy(), numbers
        )

    def _block(self, examples: Examples, first: int, end: int) -> Iterator[torch.Tensor]:
        """The gradients of units ``first`` to ``end``, some at a time: (units, all weights) each."""
        length = sum(weight.numel() for weight in self.weights)
        at_once = max(min(_NUMBERS_AT_ONCE // length, _MOST_AT_ONCE), 1) if self.per_unit == 1 else 1
        for start in range(first, end, at_once):
            stop = min(start + at_once, end)
            inputs, targets = self._read(examples, start * self.per_unit, stop * self.per_unit)
            vectorised = self._vectorised(inputs, targets) if self.vectorised else None
            if vectorised is not None:
                yield vectorised
                continue
            for unit in range(start, stop):
                place = slice((unit - start) * self.per_unit, (unit - start + 1) * self.per_unit)
                yield self._backward(part(inputs, place), part(targets, place), unit)[None]

    def _backward(self, inputs: Any, targets: Any, unit: int) -> torch.Tensor:
        """One unit's gradient, (all weights,), by plain backward; its random numbers are keyed by the unit."""
        with torch.random.fork_rng(devices=devices_in_use(self.state.device)):
            torch.manual_seed(key(self.seed, unit, _DRAWN) >> 1)
            drawn = torch.get_rng_state()
            loss, _ = self.state.task.train_pass(self.state.model, inputs, targets)
            self._draws_random |= not torch.equal(drawn, torch.get_rng_state())
            gradients = torch.autograd.grad(loss / self.per_unit, self.weights, allow_unused=True)
        parts = zip(gradients, self.weights, strict=True)
        return torch.cat([(torch.zeros_like(w) if g is None else g).reshape(-1) for g, w in parts])

    def _read(self, examples: Examples, first: int, end: int) -> tuple[Any, Any]:
        inputs, targets = examples.part(slice(first, end))
        return self.state.normalizer(inputs), mapped(lambda tensor: tensor.to(self.state.device), targets)

    def _try_vectorised(self, examples: Examples) -> None:
        """See by the first example whether torch.func gives what backward does: on every process alike."""
        if not self.vectorised:
            return
        inputs, targets = self._read(examples, 0, 1)
        alone, gradients = self._backward(inputs, targets, 0), self._vectorised(inputs, targets)
        near = gradients is not None and float((gradients[0] - alone).norm()) <= _AGREES * float(alone.norm())
        self.vectorised = near and not self._draws_random

    def _vectorised(self, inputs: Any, targets: Any) -> torch.Tensor | None:
        """Single examples' gradients, (m, all weights); None, now and later, where torch.func does not give them."""
        self.vectorised = not any(isinstance(column, list) for column in columns((inputs, targets)))
        if not self.vectorised:
            return None
        try:
            return self._of_examples(inputs, targets)
        except Exception:  # an operation without a rule for vmap, such as an LSTM's
            self.vectorised = False
            return None

    def _of_examples(self, inputs: Any, targets: Any) -> torch.Tensor:
        model, task = self.state.model, self.state.task
        kept = {name: tensor.detach() for name, tensor in (*model.named_parameters(), *model.named_buffers())}
        trained = {name: kept.pop(name) for name in self._names}

        def loss_of(weights: dict[str, torch.Tensor], example: Any, target: Any) -> torch.Tensor:
            alone = [mapped(lambda tensor: tensor[None], one) for one in (example, target)]
            loss, _ = task.train_pass(lambda *given: functional_call(model, {**kept, **weights}, given), *alone)
            return loss

        with sdpa_kernel(SDPBackend.MATH):  # the fused forms have no rule for vmap, and would be run example by example
            gradients = vmap(grad(loss_of), in_dims=(None, 0, 0), randomness="different")(trained, inputs, targets)
        rows = num_examples(targets)
        return torch.cat([gradients[name].reshape(rows, -1) for name in self._names], 1)


def _products(summed: torch.Tensor, weighting: torch.Tensor | None = None) -> Any:
    """Inner products of the rows, float64, row by row: no float64 copy of all."""
    rows = []
    for row in summed:
        weighted = row.double() if weighting is None else row.double() * weighting
        rows.append(torch.stack([weighted @ other.double() for other in summed]))
    return torch.stack(rows).cpu().numpy()
