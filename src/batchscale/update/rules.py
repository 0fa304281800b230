"""Scaling rules: how the lr, and every constant that is written per step but meant per example, follow the minibatch.

With kappa = kn / reference minibatch (also of a growth or a branch, whose factors multiply):

    rule             lr            beyond the lr
    linear           x kappa       averaged weights: d^kappa
    sqrt             x sqrt kappa  averaged weights: d^kappa
    adam_sde         x sqrt kappa  1 - beta_i -> kappa (1 - beta_i); epsilon / sqrt kappa; averaged weights: d^kappa
    half_life        as stated     beta2^kappa; averaged weights: d^kappa
    half_life_sqrt   x sqrt kappa  the same
    adascale         x r_t in [1, kappa], measured in every step (``update/adascale.py``); averaged weights: d^kappa
    none             as stated

SGD's momentum stays under every rule: lr / (1 - m) (N / kn - 1) is kept by the lr alone.

Source: Goyal et al. 2017, section 2.1 (linear; the momentum: remark 2); Krizhevsky 2014 (sqrt); Malladi et al. 2022,
"On the SDEs and Scaling Rules for Adaptive Gradient Algorithms" (adam_sde); Marek et al. 2025, "Small Batch Size
Training for Language Models" (half_life); Johnson et al. 2020 (adascale); Busbridge et al. 2023, "How to Scale Your
EMA" (d^kappa).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction

Number = float | Fraction
"""Fractions keep what is written in decimals exact: 1 - 10 (1 - 0.9) is 0, and a little above it in floats."""


@dataclass(frozen=True)
class ScaledConstant:
    """How one constant follows the minibatch.

    Attributes:
        formula: of the stated constant c.
        value: (c, kappa) -> the constant of a step.
        ends: whether it comes to 0 at a kappa of 1 / (1 - c), beyond which there is none.
    """

    formula: str
    value: Callable[[Number, Fraction], Number]
    ends: bool = False


@dataclass(frozen=True)
class ScalingRule:
    """What a rule makes of kappa.

    Attributes:
        lr: kappa -> factor on the reference lr.
        lr_formula: of that factor, r for kappa.
        constants: of the optimizer, by name.
        averages: whether averaged weights keep their decay an example.
    """

    lr: Callable[[float], float]
    lr_formula: str
    constants: Mapping[str, ScaledConstant] = field(default_factory=dict)
    averages: bool = True


def _same_share_of_examples(beta: Number, kappa: Fraction) -> Number:
    """1 - beta' = kappa (1 - beta): the memory in units of the SDE's time, lr^2 a step; without an average, 0, none."""
    return 1 - kappa * (1 - beta) if beta else beta


def _same_half_life(beta: Number, kappa: Fraction) -> Number:
    """beta' = beta^kappa: half of an average is gone after the same number of examples."""
    return math.pow(beta, kappa)


def _against_noise(epsilon: Number, kappa: Fraction) -> Number:
    """epsilon' = epsilon / sqrt kappa: as the root of v falls where gradient noise is most of it."""
    return float(epsilon) / math.sqrt(kappa)


_SDE = ScaledConstant("1 - kappa (1 - {c})", _same_share_of_examples, ends=True)
_HALF_LIFE = {"beta2": ScaledConstant("{c}^kappa", _same_half_life)}
_ADAM_SDE = {"beta1": _SDE, "beta2": _SDE, "epsilon": ScaledConstant("{c} / sqrt kappa", _against_noise)}

RULES: dict[str, ScalingRule] = {
    "linear": ScalingRule(lambda kappa: kappa, "{r}"),
    "sqrt": ScalingRule(math.sqrt, "sqrt({r})"),
    "adam_sde": ScalingRule(math.sqrt, "sqrt({r})", _ADAM_SDE),
    "half_life": ScalingRule(lambda kappa: 1.0, "1", _HALF_LIFE),
    "half_life_sqrt": ScalingRule(math.sqrt, "sqrt({r})", _HALF_LIFE),
    # Of the rule itself 1: the gain multiplies the lr of the reference minibatch in every step.
    "adascale": ScalingRule(lambda kappa: 1.0, "gain in [1, {r}], measured; at first 1"),
    "none": ScalingRule(lambda kappa: 1.0, "1", averages=False),
}
"""Every rule that learning_rate.scaling may name."""

SCALINGS: dict[str, Callable[[float], float]] = {name: rule.lr for name, rule in RULES.items()}
"""kn / reference minibatch -> factor on the reference lr."""
