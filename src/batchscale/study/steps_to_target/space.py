"""The search space of a trial, and its quasi-random points (Optuna).

lr / (1 - momentum)   log-uniform; the lr itself where the optimizer has no momentum
1 - momentum          log-uniform
weight_decay          log-uniform
final_lr              log-uniform: the share of the lr left at the end of the step budget, to which it falls linearly

Trial i of a minibatch is a pure function of (seed, kn, i): point i of a Halton sequence scrambled by key(seed, kn), so
a search goes on, or is made longer, with the trials it has. Cost: nothing beside a training step.

Source: Shallue et al. 2018, section 3.2 (quasi-random search; effective lr: section 4.6); Bousquet et al. 2017,
"Critical Hyper-Parameters: No Random, No Cry" (scrambled Halton).
"""

from __future__ import annotations

import importlib
import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from batchscale.errors import UsageError
from batchscale.randomness import key

_BORDER = 0.05  # of the (logarithmic) width, at either end
_DIGITS = 4  # of a setting: a trial can be repeated by hand
_SEEDS = 2**32


@dataclass(frozen=True)
class Dimension:
    """One searched number, log-uniform from low to high; low = high: it stays.

    Args:
        name: of the setting.
        low, high: bounds; of 1 - momentum for "momentum".
        natural: the end beyond which there is nothing to try, so that it is no border.
    """

    name: str
    low: float
    high: float
    natural: Literal["low", "high"] | None = None

    @property
    def searched(self) -> bool:
        """Whether it varies."""
        return self.high > self.low

    def on_border(self, value: float) -> bool:
        """Whether a value lies in the outer 5 % of the range, at an end that could be moved."""
        if not self.searched:
            return False
        place = math.log(value / self.low) / math.log(self.high / self.low)
        return (place < _BORDER and self.natural != "low") or (place > 1 - _BORDER and self.natural != "high")


@dataclass(frozen=True)
class Space:
    """The searched numbers of one minibatch."""

    dimensions: tuple[Dimension, ...]

    def draw(self, trials: int, seed: int, minibatch: int) -> list[dict[str, float]]:
        """The settings of every trial, each a pure function of (seed, minibatch, its number).

        Args:
            trials: T.
            seed: of the recipe.
            minibatch: kn.

        Raises:
            UsageError: Optuna is not installed.
        """
        searched = {d.name: (d.low, d.high) for d in self.dimensions if d.searched}
        points = _points(searched, trials, key(seed, minibatch) % _SEEDS) if searched else [{}] * trials
        return [
            {d.name: _rounded(point.get(d.name, d.low), d.name) for d in self.dimensions}
            for point in points
        ]  # fmt: skip

    def borders(self, settings: Mapping[str, float]) -> tuple[str, ...]:
        """Names of the settings that lie on the border."""
        values = {**settings, "momentum": 1 - settings.get("momentum", 0.0)}
        return tuple(d.name for d in self.dimensions if d.on_border(values[d.name]))


def _rounded(value: float, name: str) -> float:
    short = float(f"{value:.{_DIGITS}g}")
    return round(1 - short, 10) if name == "momentum" else short


def _points(ranges: Mapping[str, tuple[float, float]], count: int, seed: int) -> list[dict[str, Any]]:
    """Points of the scrambled sequence; a trial told by us fixes the space: Optuna draws a first one at random."""
    optuna = _optuna()
    space = {name: optuna.distributions.FloatDistribution(*ends, log=True) for name, ends in ranges.items()}
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # not that a study was made in memory
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            sampler = optuna.samplers.QMCSampler(qmc_type="halton", scramble=True, seed=seed)
        study = optuna.create_study(sampler=sampler)
        lowest = {name: low for name, (low, _) in ranges.items()}
        study.add_trial(optuna.trial.create_trial(params=lowest, distributions=space, value=0.0))
        return [study.ask(space).params for _ in range(count)]
    finally:
        optuna.logging.set_verbosity(verbosity)


def _optuna() -> Any:
    try:
        return importlib.import_module("optuna")
    except ImportError as error:
        raise UsageError(
            f"study steps-to-target: needs the package optuna, which cannot be imported ({error}); "
            f"install it (pip install 'batchscale[studies]')"
        ) from None
