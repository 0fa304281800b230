"""The optimizers of recipes: one entry class each, with its name, its options and where it lies.

A new optimizer is its file in ``update/`` and its class here, added to OPTIMIZER_ENTRIES.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    Field,
    SerializeAsAny,
    SerializerFunctionWrapHandler,
    WrapValidator,
    model_serializer,
    model_validator,
)

from batchscale.members import Members
from batchscale.members.loading import way_to_load
from batchscale.recipe.base import Entry, Fraction, NotNegative, OpenFraction, Positive
from batchscale.recipe.union import EntryUnion


class ChangedMomentum(Entry):
    """The momentum from an epoch on."""

    epoch: Positive
    momentum: OpenFraction


class OptimizerEntry(Entry):
    """The update and its weight decay: what every optimizer takes. Options of its own stand in its class.

    Class attributes:
        home: ``module:attribute`` of the optimizer, or itself: (groups, **its options) -> the optimizer.
        goes_by_epochs: it is given ``epoch_at``, steps done -> epochs, as well.
        wants_matrices: it is given ``matrices``, the hidden layers' weights of two dimensions, and is none without any.
    """

    home: ClassVar[str | Callable[..., Any]]
    goes_by_epochs: ClassVar[bool] = False
    wants_matrices: ClassVar[bool] = False

    name: str
    weight_decay: NotNegative = 1e-4
    clip_norm: Positive | None = None  # the longest that the aggregated gradient may be
    gradient_noise: NotNegative = 0.0  # Hoffer et al. 2017: sigma of the factor N(1, sigma^2) on an image's gradient

    def options(self) -> dict[str, Any]:
        """What this optimizer takes beside that which all take."""
        return {option: getattr(self, option) for option in OPTIMIZER_ENTRIES.options_of(self.name)}

    @model_serializer(mode="wrap")
    def _in_order(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """The name first, what stands around any optimizer last: as recipes of runs have it."""
        content: dict[str, Any] = handler(self)
        around = {option: content.pop(option) for option in ("clip_norm", "gradient_noise")}
        return {"name": content.pop("name"), **content, **around}


class WithMomentum(Entry):
    """The options of an optimizer whose momentum may change during the run."""

    momentum: Fraction = 0.9
    momentum_changes: Annotated[tuple[ChangedMomentum, ...], Field(strict=False)] = ()  # Smith et al. 2018

    @model_validator(mode="after")
    def _momentum_changes_in_order(self) -> Self:
        if self.momentum_changes and self.momentum == 0:
            raise ValueError(
                "momentum=0 with momentum_changes: the first momentum, too, must be above 0; use for example "
                "optimizer.momentum=0.9"
            )
        for earlier, change in itertools.pairwise(self.momentum_changes):
            if change.epoch <= earlier.epoch:
                raise ValueError(
                    f"momentum_changes: epoch {change.epoch:.10g} after {earlier.epoch:.10g}: epochs must rise, "
                    f"for example [{{epoch: 30, momentum: 0.95}}, {{epoch: 60, momentum: 0.98}}]"
                )
        return self


class WithNesterov(WithMomentum):
    """Nesterov's form of it."""

    nesterov: bool = True

    @model_validator(mode="after")
    def _nesterov_needs_momentum(self) -> Self:
        if self.nesterov and self.momentum == 0:
            raise ValueError("nesterov=true needs momentum above 0; set optimizer.nesterov=false")
        return self


class WithCorrection(WithNesterov):
    """Goyal et al. 2017, remark 2."""

    momentum_correction: bool = True


class WithSwitches(OptimizerEntry):
    """An optimizer whose weight decay may spare tensors."""

    decay_norms: bool = False  # gammas and betas of norm layers, and other scales: tensors of at most one dimension
    decay_biases: bool = True  # biases of all other layers


class SGDEntry(WithSwitches, WithNesterov):
    """SGD with momentum."""

    home = "batchscale.update.sgd:SGD"
    name: Literal["sgd"] = "sgd"


class SGDLrInBufferEntry(WithSwitches, WithCorrection):
    """The same with the lr inside its buffer."""

    home = "batchscale.update.sgd:SGDLrInBuffer"
    name: Literal["sgd_lr_in_buffer"] = "sgd_lr_in_buffer"


class LARSEntry(OptimizerEntry, WithMomentum):
    """You et al. 2017."""

    home = "batchscale.update.lars:LARS"
    name: Literal["lars"] = "lars"
    trust_coefficient: Positive = 0.001  # eta
    epsilon: Positive = 1e-8


class LARCEntry(LARSEntry):
    """Kurth et al. 2018: LARS, clipped."""

    home = "batchscale.update.larc:LARC"
    name: Literal["larc"] = "larc"  # type: ignore[assignment]


class LAMBEntry(OptimizerEntry):
    """You et al. 2020."""

    home = "batchscale.update.lamb:LAMB"
    name: Literal["lamb"] = "lamb"
    beta1: Fraction = 0.9
    beta2: Fraction = 0.999
    epsilon: Positive = 1e-8


class AdamWEntry(WithSwitches):
    """Loshchilov and Hutter 2019."""

    home = "batchscale.update.adamw:AdamW"
    name: Literal["adamw"] = "adamw"
    beta1: Fraction = 0.9
    beta2: Fraction = 0.999
    epsilon: Positive = 1e-8
    # weight_decay x kappa / the rule's factor on the lr: the same decay an epoch at any kn; Wang and Aitchison 2024
    scale_decay: bool = False


class MuonEntry(AdamWEntry, WithNesterov):
    """Jordan et al. 2024 for matrices, AdamW for the rest."""

    home = "batchscale.update.muon:Muon"
    wants_matrices = True
    name: Literal["muon"] = "muon"  # type: ignore[assignment]
    momentum: Fraction = 0.95
    # what a matrix' step is multiplied by, as torch.optim.Muon names it; match_rms_adamw: one lr serves AdamW as well
    adjust_lr: Literal["match_rms_adamw", "original", "spectral_unclamped"] = "match_rms_adamw"


class RMSpropWarmupEntry(WithSwitches, WithMomentum):
    """Akiba et al. 2017."""

    home = "batchscale.update.rmsprop_warmup:RMSpropWarmup"
    goes_by_epochs = True
    name: Literal["rmsprop_warmup"] = "rmsprop_warmup"
    epsilon: Positive = 1e-8
    square_decay: Fraction = 0.99  # mu_2
    rmsprop_lr: Positive = 3e-4  # eta_RMSprop, never scaled
    center_epochs: NotNegative = 10.0  # beta_center, where RMSprop and SGD weigh the same
    period_epochs: Positive = 5.0  # beta_period


_ENTRIES: tuple[type[OptimizerEntry], ...] = (
    SGDEntry, SGDLrInBufferEntry, LARSEntry, LARCEntry, LAMBEntry, AdamWEntry, MuonEntry,
    RMSpropWarmupEntry,
)  # fmt: skip
OPTIMIZER_ENTRIES: EntryUnion[OptimizerEntry] = EntryUnion("optimizer", OptimizerEntry, "name", _ENTRIES, way_to_load)
OPTIMIZERS: Members[Callable[..., Any]] = Members(
    "optimizer", {str(entry.model_fields["name"].default): entry.home for entry in _ENTRIES}
)
"""Name -> (groups, **its options) -> the optimizer."""

AnyOptimizer = Annotated[SerializeAsAny[OptimizerEntry], WrapValidator(OPTIMIZER_ENTRIES)]
