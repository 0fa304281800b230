"""The optimizer of a recipe: which options each one takes."""

from __future__ import annotations

import itertools
from typing import Annotated, Any, Literal, Self

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from batchscale.recipe.base import Entry, Fraction, NotNegative, OpenFraction, Positive

OptimizerName = Literal["sgd", "sgd_lr_in_buffer", "lars", "lamb", "adamw", "rmsprop_warmup"]
_SWITCHES = ("decay_norms", "decay_biases")
_MOMENTUM = ("momentum", "momentum_changes")
OPTIMIZER_OPTIONS: dict[OptimizerName, tuple[str, ...]] = {
    "sgd": (*_MOMENTUM, "nesterov", *_SWITCHES),
    "sgd_lr_in_buffer": (*_MOMENTUM, "nesterov", "momentum_correction", *_SWITCHES),
    "lars": (*_MOMENTUM, "trust_coefficient", "epsilon"),
    "lamb": ("beta1", "beta2", "epsilon"),
    "adamw": ("beta1", "beta2", "epsilon", *_SWITCHES),
    "rmsprop_warmup": (
        *_MOMENTUM, "square_decay", "rmsprop_lr", "center_epochs", "period_epochs", "epsilon", *_SWITCHES,
    ),
}  # fmt: skip
"""What each optimizer takes beside weight_decay, clip_norm and gradient_noise, which all take."""


class ChangedMomentum(Entry):
    """The momentum from an epoch on."""

    epoch: Positive
    momentum: OpenFraction


class Optimizer(Entry):
    """The update and its weight decay; only the options that the named optimizer takes may be given."""

    name: OptimizerName = "sgd"
    momentum: Fraction = 0.9
    momentum_changes: Annotated[tuple[ChangedMomentum, ...], Field(strict=False)] = ()  # Smith et al. 2018
    nesterov: bool = True
    momentum_correction: bool = True  # Goyal et al. 2017, remark 2
    weight_decay: NotNegative = 1e-4
    decay_norms: bool = False  # gammas and betas of norm layers, and other scales: tensors of at most one dimension
    decay_biases: bool = True  # biases of all other layers
    trust_coefficient: Positive = 0.001  # You et al. 2017: eta
    beta1: Fraction = 0.9
    beta2: Fraction = 0.999
    epsilon: Positive = 1e-8
    square_decay: Fraction = 0.99  # Akiba et al. 2017: mu_2
    rmsprop_lr: Positive = 3e-4  # Akiba et al. 2017: eta_RMSprop, never scaled
    center_epochs: NotNegative = 10.0  # Akiba et al. 2017: beta_center, where RMSprop and SGD weigh the same
    period_epochs: Positive = 5.0  # Akiba et al. 2017: beta_period
    clip_norm: Positive | None = None  # the longest that the aggregated gradient may be
    gradient_noise: NotNegative = 0.0  # Hoffer et al. 2017: sigma of the factor N(1, sigma^2) on an image's gradient

    @model_validator(mode="after")
    def _options_have_a_place(self) -> Self:
        taken = OPTIMIZER_OPTIONS[self.name]
        for option in sorted(self.model_fields_set & _OWN_OPTIONS):
            if option not in taken:
                given = _written(option, getattr(self, option))
                raise ValueError(
                    f"{given} has no place in {self.name}, which takes {', '.join(taken)}; "
                    f"leave it out, or give the whole entry, such as optimizer={{name: {self.name}}}"
                )
        if "nesterov" in taken and self.nesterov and self.momentum == 0:
            raise ValueError("nesterov=true needs momentum above 0; set optimizer.nesterov=false")
        return self

    @model_validator(mode="after")
    def _momentum_changes_in_order(self) -> Self:
        if self.momentum_changes and self.momentum == 0:
            raise ValueError(
                "momentum=0 with momentum_changes: the first momentum, too, must be above 0; use for example "
                "optimizer.momentum=0.9"
            )
        for before, change in itertools.pairwise(self.momentum_changes):
            if change.epoch <= before.epoch:
                raise ValueError(
                    f"momentum_changes: epoch {change.epoch:.10g} after {before.epoch:.10g}: epochs must rise, "
                    f"for example [{{epoch: 30, momentum: 0.95}}, {{epoch: 60, momentum: 0.98}}]"
                )
        return self

    @model_serializer(mode="wrap")
    def _without_options_that_have_no_place(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        content: dict[str, Any] = handler(self)
        return {k: v for k, v in content.items() if k not in _OWN_OPTIONS or k in OPTIMIZER_OPTIONS[self.name]}


def _written(option: str, value: Any) -> str:
    """An option as a recipe has it; a list by its name alone."""
    return option if isinstance(value, tuple) else f"{option}={value}"


_OWN_OPTIONS = {option for options in OPTIMIZER_OPTIONS.values() for option in options}
