"""How the minibatch grows during a run, instead of a fixed size or of a falling lr.

    phases             kn at given epochs
    doubling           kn_i = 2^i kn_0 from epoch i E on
    instead_of_decay   kn_i = kn_(i-1) / f at the i-th decay of the lr by f, while that is at most N / 10
    noise_scale        none that the recipe states: decided during the run, see ``update/growing.py``
    seesaw             kn_i = 2^i kn_0 where the decay has halved the lr i times, while that is at most N / 10

A change acts on k or on n. Source: Mikami et al. 2018, "Massively Distributed SGD" (batch-size control); Devarakonda
et al. 2017, "AdaBatch"; Smith et al. 2018, "Don't Decay the Learning Rate, Increase the Batch Size"; Meterez et al.
2025, "Seesaw: Accelerating Training by Balancing Learning Rate and Batch Size Scheduling".
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction

from batchscale.errors import RecipeError
from batchscale.minibatch import Change, Minibatch

_LARGEST_SHARE = Fraction(1, 10)  # Smith et al. 2018: the noise scale's approximation needs kn << N


@dataclass(frozen=True)
class Growth:
    """What a recipe says about growth.

    Args:
        kind: a member of GROWTHS.
        first: the first minibatch.
        epochs: of the run.
        training_images: N.
        grows: "workers" (k grows) or "per_worker" (n grows).
        phases: the changes, for a growth by phases.
        every_epochs: E of doubling.
        decay_epochs, decay_factor: where the lr would be multiplied by f, for instead_of_decay.
        halving_epochs: where the decay has halved the lr once more, for seesaw.
    """

    kind: str
    first: Minibatch
    epochs: float
    training_images: int
    grows: str = "workers"
    phases: tuple[Change, ...] = ()
    every_epochs: float = 20.0
    decay_epochs: tuple[float, ...] = ()
    decay_factor: float = 0.1
    halving_epochs: tuple[float, ...] = ()

    def times(self, factor: Fraction) -> Minibatch:
        """The first minibatch with k or n so many times larger.

        Raises:
            RecipeError: that is no whole number.
        """
        size = getattr(self.first, self.grows)
        grown = size * factor
        if grown.denominator > 1:
            raise RecipeError(
                f"minibatch.growth.of={self.grows}: {size} x {float(factor):g} is not whole; "
                f"use another minibatch.{self.grows}, or a learning_rate.decay.factor such as 0.1, 0.2 or 0.5"
            )
        return replace(self.first, **{self.grows: int(grown)})


def _doubling(growth: Growth) -> tuple[Change, ...]:
    every, end = Fraction(str(growth.every_epochs)), Fraction(str(growth.epochs))
    count = min(math.ceil(end / every) - 1, growth.training_images.bit_length())  # before the end; 2^count > N
    return tuple(Change(every * i, growth.times(Fraction(2**i))) for i in range(1, count + 1))


def _instead_of_decay(growth: Growth) -> tuple[Change, ...]:
    gained = 1 / Fraction(str(growth.decay_factor))
    largest = growth.training_images * _LARGEST_SHARE
    factors = itertools.takewhile(
        lambda factor: growth.first.images * factor <= largest, (gained**i for i in itertools.count(1))
    )
    decays = (Fraction(str(epoch)) for epoch in growth.decay_epochs if epoch < growth.epochs)
    return tuple(Change(epoch, growth.times(factor)) for epoch, factor in zip(decays, factors, strict=False))


def _seesaw(growth: Growth) -> tuple[Change, ...]:
    within = (epoch for epoch in growth.halving_epochs if epoch < growth.epochs)
    factors = {Fraction(str(epoch)): Fraction(2**i) for i, epoch in enumerate(within, 1)}
    ends = [*list(factors)[1:], Fraction(str(growth.epochs))]
    changes = []
    for (epoch, factor), end in zip(factors.items(), ends, strict=False):
        images = growth.first.images * factor
        # Near a decay's end halvings follow each other within a step.
        if images > growth.training_images * _LARGEST_SHARE or end - epoch <= images / growth.training_images:
            break
        changes.append(Change(epoch, growth.times(factor)))
    return tuple(changes)


GROWTHS: dict[str, Callable[[Growth], tuple[Change, ...]]] = {
    "none": lambda growth: (),
    "phases": lambda growth: growth.phases,
    "doubling": _doubling,
    "instead_of_decay": _instead_of_decay,
    "noise_scale": lambda growth: (),
    "curvature": lambda growth: (),
    "seesaw": _seesaw,
}
"""What a recipe says -> the changes of the minibatch, in order."""
