"""The entries of a recipe that say what network is trained: its name and first weights, its batch norm, its loss."""

from __future__ import annotations

import re
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from batchscale.members import MODELS
from batchscale.recipe.base import Count, Entry, Fraction, OpenFraction, Positive
from batchscale.recipe.union import member_of

_LIBRARY_NAME = re.compile(r"(torchvision|timm|smp)/[\w.-]+")
_LIBRARY_RULE = " or a name of a library, torchvision/NAME, timm/NAME or smp/NAME"


class Model(Entry):
    """The network, by name, and its initial weights."""

    name: Annotated[str, member_of(MODELS, _LIBRARY_NAME, _LIBRARY_RULE)]
    # of a network that has some, such as width and levels of unet, or dropout of transformer
    options: dict[str, int | float] = Field(default_factory=dict)
    # evaluate an exponential moving average of the weights; stated at learning_rate.reference_minibatch: in a step of
    # kappa times its examples ema_decay^kappa, except under learning_rate.scaling=none
    ema_decay: OpenFraction | None = None
    zero_init_last_gamma: bool = False  # Goyal et al. 2017, section 5.1: last gamma of a residual block starts at 0
    fc_init: Positive | None = None  # Goyal et al. 2017, section 5.1: last linear layer ~ N(0, fc_init^2), bias 0
    pretrained: str | None = None  # a local file of weights: safetensors, or torch.save's
    pretrained_key: str | None = None  # which of several state dicts in that file, such as state_dict_ema

    @model_validator(mode="after")
    def _one_origin_of_weights(self) -> Self:
        drawn = self.zero_init_last_gamma or self.fc_init is not None
        if self.pretrained is not None and (drawn or self.name == "own"):
            raise ValueError(
                "pretrained has no place beside zero_init_last_gamma, fc_init or name=own: weights are drawn or read; "
                "leave one out"
            )
        if self.pretrained_key is not None and self.pretrained is None:
            raise ValueError(
                f"pretrained_key={self.pretrained_key} names weights in a file: give model.pretrained=FILE, or leave "
                "it out"
            )
        return self


class BatchNorm(Entry):
    """Which images a batch-norm layer normalises together, and what evaluation normalises by."""

    span: Count = 1  # g: workers whose g n images are normalised together; Ying et al. 2018
    # averages: the layer's moving averages, debiased; recomputed: before an evaluation the mean and variance over
    # recompute_examples training images, at the weights evaluated; none: the last step's means and (over the workers'
    # groups averaged) variances, Akiba et al. 2017
    running: Literal["averages", "recomputed", "none"] = "averages"
    recompute_examples: Count | None = None  # for running: recomputed, in passes of n; min(N, 64 n)

    @model_validator(mode="after")
    def _examples_have_a_place(self) -> Self:
        if self.recompute_examples is not None and self.running != "recomputed":
            raise ValueError(
                f"recompute_examples={self.recompute_examples} has no place in running: {self.running}; leave it out, "
                f"or use batch_norm.running=recomputed"
            )
        return self


class Loss(Entry):
    """Softmax cross-entropy; of segmentation a pixel's, or another loss."""

    # of task: segmentation. binary: logistic, one logit a pixel, of two classes; dice: of the overlap, of an image
    kind: Literal["cross_entropy", "binary", "dice"] = "cross_entropy"
    label_smoothing: Fraction = 0.0
    # of task: segmentation's cross_entropy: what a pixel's loss is multiplied by, a number a class (1 each)
    class_weights: list[Positive] = Field(default_factory=list)
