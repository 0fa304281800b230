"""Weights, and batch norm's averages, at the points of a line or a plane.

    around a run:           w(a, b) = w + a d1 + b d2;                 its averages stay
    from one run to another: w(a) = (1 - a) w1 + a w2;                 v(a) = (1 - a) v1 + a v2, at least 0

A variance that is extrapolated below zero counts as zero.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

import torch
from torch import nn

from batchscale.build.state import State
from batchscale.data.contents import difference
from batchscale.errors import UsageError
from batchscale.measure.derivatives import flat
from batchscale.measure.landscape.directions import random_direction
from batchscale.measure.parts import trained_weights


def axis(low: float, high: float, points: int) -> tuple[float, ...]:
    """Evenly from low to high, as these are written in decimals: where 0 or 1 is among them, it is met exactly."""
    first, last = Fraction(str(low)), Fraction(str(high))
    return tuple(float(first + (last - first) * place / (points - 1)) for place in range(points))


@dataclass(frozen=True)
class Around:
    """Points around a run.

    Attributes:
        centre: w, float64 (P,).
        directions: d1, d2, ...; float64 (P,) each.
    """

    centre: torch.Tensor
    directions: tuple[torch.Tensor, ...]

    @classmethod
    def of(cls, model: nn.Module, seed: int, dimensions: int) -> Around:
        """Along so many random directions."""
        weights = trained_weights(model)
        directions = (random_direction(model, weights, seed, number) for number in range(1, dimensions + 1))
        return cls(flat(weights, weights), tuple(directions))

    def weights(self, point: Sequence[float]) -> torch.Tensor:
        """w(a, b), float64 (P,)."""
        moved = self.centre.clone()
        for share, direction in zip(point, self.directions, strict=True):
            moved += share * direction
        return moved

    def averages(self, point: Sequence[float]) -> Mapping[str, torch.Tensor]:
        """Buffers that differ from the run's: none."""
        return {}


@dataclass(frozen=True)
class Between:
    """Points of the line from one run to another.

    Attributes:
        ends: w1 and w2, float64 (P,).
        buffers: name -> those of both ends, of every floating one that differs.
    """

    ends: tuple[torch.Tensor, torch.Tensor]
    buffers: Mapping[str, tuple[torch.Tensor, torch.Tensor]]

    @classmethod
    def of(cls, first: nn.Module, second: nn.Module, names: tuple[str, str]) -> Between:
        """From the first model to the second.

        Args:
            first, second: the models.
            names: what these are called.

        Raises:
            UsageError: they are of different nets.
        """
        _check_same_net(first, second, *names)
        ends = [flat(weights, weights) for weights in map(trained_weights, (first, second))]
        held = dict(second.named_buffers())
        buffers = {
            name: (buffer.double().clone(), held[name].double())
            for name, buffer in first.named_buffers()
            if buffer.is_floating_point() and not torch.equal(buffer, held[name])
        }
        return cls((ends[0], ends[1]), buffers)

    @property
    def direction(self) -> torch.Tensor:
        """w2 - w1."""
        return self.ends[1] - self.ends[0]

    def weights(self, point: Sequence[float]) -> torch.Tensor:
        """w(a), float64 (P,); either end exactly."""
        return _mixed(self.ends, point[0])

    def averages(self, point: Sequence[float]) -> Mapping[str, torch.Tensor]:
        """Buffers that differ from the first run's."""
        mixed = {name: _mixed(ends, point[0]) for name, ends in self.buffers.items()}
        return {name: value.clamp_min(0) if _is_variance(name) else value for name, value in mixed.items()}


def _is_variance(name: str) -> bool:
    return name.rpartition(".")[2] == "running_var"


def _mixed(ends: tuple[torch.Tensor, torch.Tensor], share: float) -> torch.Tensor:
    return (1 - share) * ends[0] + share * ends[1]


def between(first: State, second: State) -> Between:
    """From the first state to the second.

    Raises:
        UsageError: they are of different nets, tasks or data.
    """
    places = Between.of(first.model, second.model, (str(first.run), str(second.run)))
    if first.task.name != second.task.name:
        raise UsageError(
            f"{second.run}: learned task={second.task.name}, {first.run} task={first.task.name}: one loss cannot be "
            f"measured on the line; give two runs of one task"
        )
    if sentence := difference(first.dataset.contents, second.dataset.contents, ("of the first", "of the second")):
        raise UsageError(
            f"{second.run}: trained on other data than {first.run} ({sentence}): there is no one stated set; give two "
            f"runs on the same data"
        )
    return places


def _check_same_net(first: nn.Module, second: nn.Module, one: str, other: str) -> None:
    nets = [_shapes(model) for model in (first, second)]
    if nets[0] != nets[1]:
        names = sorted(nets[0].keys() ^ nets[1].keys()) or [name for name in nets[0] if nets[0][name] != nets[1][name]]
        raise UsageError(
            f"{other}: is another net than {one} ({names[0]}), and no line leads from one to the other; "
            f"give two runs of one net, or --form around"
        )
    held = dict(second.named_parameters())
    for name, weight in first.named_parameters():
        if not weight.requires_grad and not torch.equal(weight, held[name]):
            raise UsageError(
                f"{other}: its frozen weight {name} differs from that of {one}, and a line of trained weights does not "
                f"lead from one to the other; give two runs with the same frozen weights, or --form around"
            )


def _shapes(model: nn.Module) -> dict[str, tuple[int, ...]]:
    """Of every weight and buffer; of a weight, whether it is trained, too."""
    weights: dict[str, tuple[int, ...]] = {
        name: (weight.requires_grad, *weight.shape) for name, weight in model.named_parameters()
    }
    return weights | {name: tuple(buffer.shape) for name, buffer in model.named_buffers()}
